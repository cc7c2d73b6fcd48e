import signal
import threading

print({s.name: str(signal.getsignal(s)).split(" at ")[0] for s in sorted(signal.Signals)})
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getitimer(signal.ITIMER_REAL))
print(threading.current_thread() is threading.main_thread(), threading.active_count())
print(signal.set_wakeup_fd(-1))

import os
import signal


def handler(number, frame):
    print("caught", number, frame.f_code.co_name)


for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, signal.SIGUSR1):
    signal.signal(number, handler)
    os.kill(os.getpid(), number)
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.pause()
try:
    signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
    signal.alarm(0)
    signal.raise_signal(signal.SIGALRM)
except ZeroDivisionError as error:
    print("from the handler:", error)

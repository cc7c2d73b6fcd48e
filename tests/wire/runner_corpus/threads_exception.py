import threading


def fail():
    raise ValueError("in a thread")


thread = threading.Thread(target=fail, name="worker")
thread.start()
thread.join()
threading.excepthook = lambda args: print("hook:", args.exc_type.__name__, args.thread.name)
thread = threading.Thread(target=fail, name="second")
thread.start()
thread.join()
print("main goes on")

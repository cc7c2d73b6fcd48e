import sys
import threading


def leave():
    print("thread leaves")
    sys.exit(3)


thread = threading.Thread(target=leave)
thread.start()
thread.join()
print("main goes on")

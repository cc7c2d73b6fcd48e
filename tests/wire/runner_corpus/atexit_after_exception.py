import atexit
import sys


@atexit.register
def at_end():
    print("hook is default:", sys.excepthook is sys.__excepthook__, sys.exc_info(), __name__)
    print(sorted(name for name in globals() if not name.startswith("__")))


raise ValueError("first")

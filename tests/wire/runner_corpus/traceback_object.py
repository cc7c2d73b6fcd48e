import sys
import traceback

try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
    print(traceback.format_exc())
    print(len(traceback.extract_tb(sys.exc_info()[2])))
import atexit


def last():
    print("last:", getattr(sys, "last_value", None))
    for frame in traceback.extract_tb(sys.last_traceback):
        print(frame.name, frame.lineno, frame.line)
    print(sys.last_value.__traceback__ is sys.last_traceback, sys.last_type)


atexit.register(last)
raise LookupError("kept")

import sys
import traceback


def hook(kind, value, trace):
    print("hook:", kind.__name__, value, [f.lineno for f in traceback.extract_tb(trace)], sys.excepthook is hook)


sys.excepthook = hook
raise ValueError("for the hook")

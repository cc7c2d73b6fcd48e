import sys


def hook(kind, value, trace):
    raise RuntimeError("the hook is broken")


sys.excepthook = hook
raise ValueError("for the hook")

class Loud:
    def __del__(self):
        raise ValueError("in __del__")


import sys

sys.unraisablehook = lambda info: print("unraisable:", info.exc_type.__name__, info.exc_value)
Loud()
print("goes on")

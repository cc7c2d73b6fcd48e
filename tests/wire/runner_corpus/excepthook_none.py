import sys

sys.excepthook = None
raise ValueError("for nobody")

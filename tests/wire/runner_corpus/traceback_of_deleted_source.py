import os

os.remove("main.py")
raise RuntimeError("the source is gone")

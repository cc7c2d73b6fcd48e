import atexit
import os

atexit.register(os._exit, 8)
print("body")

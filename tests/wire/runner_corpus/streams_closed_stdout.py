import os
import sys

os.close(1)
sys.stderr.write("closed\n")
print("into nothing")

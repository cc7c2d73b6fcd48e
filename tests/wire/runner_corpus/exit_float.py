import sys

print("leaving")
sys.exit(1.5)

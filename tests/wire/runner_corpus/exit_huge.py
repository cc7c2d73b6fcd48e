import sys

print("leaving")
sys.exit(2**70)

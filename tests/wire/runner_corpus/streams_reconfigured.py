import sys

sys.stdout.reconfigure(encoding="latin-1", errors="replace")
print("caf\u00e9 \u2603")

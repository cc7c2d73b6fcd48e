# stdin: b"\x00\x01\xff\n" * 50000
import os
import sys

data = sys.stdin.buffer.read(5)
print(data, len(sys.stdin.buffer.read()), os.fstat(0).st_size)

import os
import sys

sys.stdout.buffer.write(bytes(range(256)))
os.write(1, b"\x1eout 3\nabc\n\x1eexit 2\n{}\n")
os.write(2, b"\xff\xfe\x00")
sys.stdout.flush()

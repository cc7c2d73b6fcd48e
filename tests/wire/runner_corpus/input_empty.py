try:
    input("a prompt: ")
except EOFError as error:
    print("EOF:", error)
import sys

print(repr(sys.stdin.read()), sys.stdin.isatty())
input()

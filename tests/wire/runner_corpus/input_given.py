# stdin: "first line\nsecond\nh\u00e9llo\nno newline"
import sys

print(repr(input("prompt> ")))
print(repr(sys.stdin.readline()))
for line in sys.stdin:
    print(repr(line))
print(repr(sys.stdin.read()))

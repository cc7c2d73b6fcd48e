# args: ["one", "two words", "", "--flag=1", "h\u00e9llo \u2603", "-c"]
import sys

print(sys.argv)

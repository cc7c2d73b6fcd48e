import sys

print(sys.flags, sys.warnoptions, sys._xoptions, sys.executable, sys.prefix)
print(sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors, sys.stdin.name, sys.stdout.name)
print(sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.isatty())
print(sys.stdout.write_through, sys.stdout.line_buffering, type(sys.stdout.buffer).__name__)
print(sys.stdin.mode, sys.stdin.readable(), sys.stdin.seekable(), sys.stdout.seekable())
print(sys.getrecursionlimit(), sys.getswitchinterval(), sys.excepthook is sys.__excepthook__)
print(sys.displayhook is sys.__displayhook__, sys.gettrace(), sys.getprofile())
print(sys.path)
print(sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__, sys.stdin is sys.__stdin__)

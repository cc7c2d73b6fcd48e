import sys

if sys.version_info < (3, 11):
    raise SystemExit("no exception groups")
try:
    raise ExceptionGroup("both", [ValueError(1), TypeError(2)])
except ExceptionGroup as group:
    group.add_note("a note")
    raise ExceptionGroup("outer", [group, OSError(5, "io")]) from None

import sys

print("leaving")
sys.exit(object.__new__(type("Thing", (), {"__str__": lambda self: "a thing"})))

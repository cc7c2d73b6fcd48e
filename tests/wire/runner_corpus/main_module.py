import sys
import types

main = sys.modules["__main__"]
print(type(main) is types.ModuleType, vars(main) is globals(), __name__, __doc__, __package__, __spec__)
print(__file__, sys.argv, sys.path[0])
print(type(__loader__).__module__, type(__loader__).__name__, __loader__.name, __loader__.path)
print(__builtins__, __cached__)
print([name for name in globals() if name not in ("sys", "types", "main")])
print(__loader__.get_source("__main__")[:10])

import importlib.util
import runpy

print(importlib.util.find_spec("main").origin)
print(runpy.run_path("main.py", run_name="other")["__name__"] if __name__ == "__main__" else __name__)

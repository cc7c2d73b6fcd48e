import inspect
import linecache


def example(a, *, b=2):
    """Shown."""
    return a + b


class Shape:
    side = 4


print(inspect.getsource(example))
print(inspect.getsource(Shape))
print(inspect.getfile(Shape) == __file__, inspect.getmodule(example).__name__, inspect.getsourcefile(example))
print(linecache.getline(__file__, 1), inspect.signature(example))
print(inspect.currentframe().f_code.co_name, inspect.currentframe().f_lineno)

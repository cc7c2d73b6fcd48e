"""What this is."""


def f() -> int:
    """A function."""
    return 1


class C:
    x: int = 1


print(__doc__, f.__module__, C.__module__, C.__qualname__, f.__doc__, f.__globals__ is globals())
print(f.__code__.co_filename == __file__, C)
if __name__ == "__main__":
    print("as a script")

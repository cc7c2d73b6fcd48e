import warnings


def old():
    warnings.warn("old is old", DeprecationWarning, stacklevel=2)


warnings.warn("a user warning")
old()
for _ in range(2):
    warnings.warn("once", RuntimeWarning)
warnings.warn("pending", PendingDeprecationWarning)
open("unclosed.txt", "w").write("x")

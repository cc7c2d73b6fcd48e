print(copyright is not None, quit, type(help).__name__, __import__("builtins") is __builtins__)

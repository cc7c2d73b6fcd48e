def f():
    x = 1
    breakpoint()
    return x


f()

import atexit

atexit.register(print, "registered first")
atexit.register(print, "registered last")


@atexit.register
def broken():
    raise ValueError("in atexit")


print("body")

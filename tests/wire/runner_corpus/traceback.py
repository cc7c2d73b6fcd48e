def outer(n):
    return inner(n) + 1


def inner(n):
    values = [1, 2, 3]
    return values[n]


print("before")
outer(7)

x = "a\d"
print(x is "a", 1 is 1)
assert (x, "always")

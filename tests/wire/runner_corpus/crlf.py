x = """a
b"""
print(repr(x))
raise ValueError(1)

# files: {"a.txt": "only read"}
print(open("a.txt").read())

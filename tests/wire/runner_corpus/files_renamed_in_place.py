# files: {"a.txt": "aaaa", "b.txt": "bbbb"}
import os

os.rename("a.txt", "t")
os.rename("b.txt", "a.txt")
os.rename("t", "b.txt")

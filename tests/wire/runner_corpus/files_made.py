# files: {"input.txt": "given", "data/deep/in.bin": "unchanged", "gone.txt": "to be removed", "same.txt": "abcd"}
import os

open("result.txt", "w").write("made")
open("input.txt", "a").write(" and more")
open("same.txt", "w").write("efgh")
os.makedirs("sub/dir")
open("sub/dir/x.bin", "wb").write(bytes(range(256)))
open("empty", "w").close()
os.remove("gone.txt")
open("h\u00e9llo \u2603 'q\" .txt", "w").write("unicode")
print(open("data/deep/in.bin").read(), sorted(os.listdir(".")))

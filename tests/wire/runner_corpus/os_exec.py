import os

print("before")
os.execvp("sh", ["sh", "-c", "echo replaced; exit 11"])

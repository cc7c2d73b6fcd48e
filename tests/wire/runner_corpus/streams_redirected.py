import contextlib
import io
import os

with contextlib.redirect_stdout(io.StringIO()) as text:
    print("inside")
print("outside", text.getvalue())
saved = os.dup(1)
os.dup2(2, 1)
print("to stderr now")
os.dup2(saved, 1)
print("and back")

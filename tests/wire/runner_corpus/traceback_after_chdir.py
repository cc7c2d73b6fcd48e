import os

os.mkdir("below")
os.chdir("below")
raise RuntimeError("elsewhere")

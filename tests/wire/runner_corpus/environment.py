import os
import subprocess
import sys

print(sorted(os.environ.items()))
print([name for name in os.environ if "SANDBOX" in name])
out = subprocess.run(["/usr/bin/env"], stdout=subprocess.PIPE, check=True).stdout.decode()
print(sorted(line for line in out.splitlines() if not line.startswith(("_=", "PWD=", "SHLVL="))))
print(os.getcwd() == os.path.realpath(os.getcwd()), os.listdir("."), os.path.isdir(os.environ["HOME"]))
print(os.listdir(os.environ["HOME"]), os.listdir(os.environ["TMPDIR"]))

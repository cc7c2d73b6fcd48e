import subprocess
import sys

subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
print(subprocess.run([sys.executable, "-c", "import sys; print(sys.path[0] == '', sys.argv)"]).returncode)
print(subprocess.check_output(["pwd"]).decode() == __import__("os").getcwd() + "\n")

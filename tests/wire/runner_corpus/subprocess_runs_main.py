import subprocess
import sys

if len(sys.argv) > 1:
    print("child", sys.argv, __name__)
    sys.exit(5)
print(subprocess.run([sys.executable, __file__, "again"]).returncode)

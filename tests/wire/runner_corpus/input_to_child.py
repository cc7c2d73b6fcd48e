# stdin: "for the child\n"
import subprocess

print(subprocess.run(["cat"], stdout=subprocess.PIPE, check=True).stdout)

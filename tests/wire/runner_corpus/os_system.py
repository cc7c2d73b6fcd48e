import os

print(os.system("echo from the shell; exit 4"))
print(os.popen("echo piped").read())

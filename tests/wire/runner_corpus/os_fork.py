import os

pid = os.fork()
if pid == 0:
    print("child")
    raise SystemExit(12)
print("parent saw", os.WEXITSTATUS(os.waitpid(pid, 0)[1]))

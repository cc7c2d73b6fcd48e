import os


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


print([fd for fd in range(256) if is_open(fd)], [os.get_inheritable(fd) for fd in range(3)])

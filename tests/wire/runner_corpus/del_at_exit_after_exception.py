class Thing:
    def __del__(self):
        print("gone")


def f():
    local = Thing()
    raise ValueError("while it lives")


kept = Thing()
f()

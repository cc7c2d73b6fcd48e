import sys

seen = []
sys.settrace(lambda frame, event, arg: seen.append((event, frame.f_code.co_name)))


def f():
    return 1


f()
sys.settrace(None)
print(seen)

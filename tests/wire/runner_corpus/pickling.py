import copy
import pickle


class Point:
    def __init__(self, x):
        self.x = x


print(pickle.loads(pickle.dumps(Point(3))).x, copy.deepcopy(Point(4)).x)
print(pickle.dumps(Point).count(b"__main__"))
try:
    pickle.dumps(lambda: 0)
except Exception as error:
    print(type(error).__name__)

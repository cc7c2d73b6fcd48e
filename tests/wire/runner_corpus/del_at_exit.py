class Thing:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("gone:", self.name, __name__)


a = Thing("a")
b = Thing("b")
_c = Thing("_c")


def uses():
    return a


a.cycle = a
nested = {"x": [Thing("nested")]}
print("end of body")

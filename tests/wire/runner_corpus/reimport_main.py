import sys

print("running as", __name__)
if __name__ == "__main__":
    import main

    print(main.__name__, main.__file__ == __file__ or main.__file__, main is sys.modules["__main__"])
    from main import helper

    print(helper())


def helper():
    return "helped by " + __name__

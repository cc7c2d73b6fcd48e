import sys


class Words:
    def __str__(self):
        return f"hook is default: {sys.excepthook is sys.__excepthook__}"


sys.exit(Words())

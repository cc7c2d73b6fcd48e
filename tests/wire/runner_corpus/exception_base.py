class Mine(BaseException):
    """Not an Exception."""


raise Mine("out of the tree")

def first():
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("no such thing") from error


try:
    first()
except ValueError:
    int("x")

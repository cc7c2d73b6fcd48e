x = "\d"
def f():
    if x is "a": pass
return 5

import re
x = "\d"
if x is "a": pass
y = = 1

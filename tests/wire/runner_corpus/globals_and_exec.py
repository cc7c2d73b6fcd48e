exec("made = 1")
print(made, eval("made + 1"), globals() is locals(), "made" in dir())
code = "import sys; print(sys._getframe().f_code.co_filename)"
exec(code)

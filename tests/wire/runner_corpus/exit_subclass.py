class Leave(SystemExit):
    code = 9


raise Leave("with words")

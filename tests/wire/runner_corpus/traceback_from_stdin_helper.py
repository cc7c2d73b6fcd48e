exec(compile("def f():\n    1 / 0\n", "<made up>", "exec"))
f()

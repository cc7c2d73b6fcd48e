print([10 // n for n in (1, 2, 0)])

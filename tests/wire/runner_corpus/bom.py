print("with a mark")
raise ValueError(1)

x = []
raise MemoryError

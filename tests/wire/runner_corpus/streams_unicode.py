print("h\u00e9llo \u2603 \U0001f600 \u202e\u2028\u0085")
print("\udcff")

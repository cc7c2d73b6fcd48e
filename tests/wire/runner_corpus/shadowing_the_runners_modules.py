# files: {"zlib.py": "print('my zlib')\n", "select.py": "print('my select')\n", "signal.py": "raise SystemExit('my signal')\n", "binascii.py": "print('my binascii')\n", "_json.py": "print('my _json')\n"}
open("made.txt", "w").write("made")
print("done")

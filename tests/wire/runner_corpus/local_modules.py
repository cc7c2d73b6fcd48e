# files: {"helper.py": "import sys\nprint('helper runs')\ndef boom():\n    raise ValueError('from helper')\n", "pack/__init__.py": "", "pack/inner.py": "from . import __name__ as outer\nprint(outer)\n", "json.py": "print('this json shadows the library')\nx = 1\n", "enum_.py": "y = 2\n"}
import helper
import pack.inner
import json

print(json.x, json.__file__)
helper.boom()

import os
import tempfile

print(os.path.dirname(tempfile.mkdtemp()) == os.environ["TMPDIR"], tempfile.gettempdir())
with tempfile.NamedTemporaryFile(dir=".") as file:
    file.write(b"x")

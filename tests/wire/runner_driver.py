"""Start the runner as the kubelet does, with environment variables, a volume or stdin, and read its frames.

The reader here is not the client's decoder: it trusts every byte, and fails if the runner writes anything that is
not protocol 1.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gke_sandbox._wire.payload import runner_text

RUNNER = runner_text()
FROM_ENVIRONMENT = "import os;exec(compile(os.environ.pop('GKE_SANDBOX_RUNNER'),'runner.py','exec'))"

# The interpreter for the runner, which supports Python 3.8; the package itself does not.
PYTHON = os.environ.get("RUNNER_TEST_PYTHON", sys.executable)

Delivery = Literal["env", "mount", "attach"]
DELIVERIES: tuple[Delivery, ...] = ("env", "mount", "attach")


@dataclass(frozen=True)
class Frame:
    """One frame. `at` is its position in the log and `size` its length there, in bytes; output is decompressed."""

    kind: str
    payload: bytes
    meta: Any
    at: int
    size: int


def read_frames(log: bytes) -> list[Frame]:
    """Read a log that contains only complete frames. Raises AssertionError for other content."""
    frames = []
    at = 0
    while at < len(log):
        end = log.index(b"\n", at)
        assert log[at : at + 1] == b"\x1e", log[at : at + 80]
        kind, length, *meta = log[at + 1 : end].split(b" ", 2)
        payload = log[end + 1 : end + 1 + int(length)]
        after = end + 2 + int(length)
        assert log[after - 1 : after] == b"\n", log[at : at + 80]
        about = json.loads(meta[0]) if meta else None
        if kind in (b"out", b"err") and meta:
            assert about == {"encoding": "zlib"}
            payload = zlib.decompress(base64.b64decode(payload, validate=True))
        frames.append(Frame(kind.decode(), payload, about, at, after - at))
        at = after
    return frames


def on_disk(log: bytes) -> int:
    """Return the size of the node's log file: containerd writes ``<time> stdout F `` before each line of at most
    16 KiB.

    With nanoseconds and an offset that is 45 bytes. A longer line is split into several, each with a newline.
    """
    total = 0
    for line in log.split(b"\n")[:-1]:
        pieces = max(1, -(-len(line) // 16384))
        total += len(line) + pieces * 46
    return total


@dataclass(frozen=True)
class Ran:
    """The outcome of a runner: its frames, its exit status (negative for a signal), and its stderr."""

    frames: list[Frame]
    status: int
    log: bytes
    noise: bytes

    def of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame.kind == kind]

    @property
    def stdout(self) -> bytes:
        return b"".join(frame.payload for frame in self.of("out"))

    @property
    def stderr(self) -> bytes:
        return b"".join(frame.payload for frame in self.of("err"))

    @property
    def files(self) -> dict[str, bytes]:
        return {frame.meta: zlib.decompress(base64.b64decode(frame.payload)) for frame in self.of("file")}

    @property
    def exit(self) -> dict[str, Any]:
        """The payload of the exit frame, which must be the last frame."""
        assert [frame.kind for frame in self.frames].index("exit") == len(self.frames) - 1
        return dict(json.loads(self.frames[-1].payload))


@dataclass(frozen=True)
class Program:
    """A program with its limits."""

    code: str | bytes
    args: Sequence[str] = ()
    stdin: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    timeout: float = 30.0
    output: int = 1 << 20
    max_files: int = 100
    file_bytes: int = 4 << 20
    log_bytes: int = 9 << 20
    cpus: int = 1
    keep_home: bool = False

    @property
    def source(self) -> bytes:
        return self.code.encode() if isinstance(self.code, str) else self.code


def config_map(program: Program, delivery: Delivery, *, packed: bool = False) -> dict[str, bytes]:
    """Return the ConfigMap's values by key. `packed` is the compressed form, for volumes only.

    With stdin there is no ConfigMap: ``contents`` follow the request there.
    """
    values: dict[str, bytes] = {"wait": b"30", "contents": b""} if delivery == "attach" else {}

    def put(stem: str, data: bytes) -> list[object]:
        def keys(pieces: Sequence[bytes]) -> list[str]:
            first = sum(key.startswith(stem) for key in values)
            names = [f"{stem}_{first + number}" for number in range(len(pieces))]
            values.update(zip(names, pieces, strict=True))
            return names

        if packed:
            return ["zlib", keys([zlib.compress(data)])]
        if delivery == "attach":
            values["contents"] += data
            return ["raw", [len(data)]]
        if delivery == "mount":
            return ["raw", keys([data] if data else [])]
        if stem == "code" and b"\0" not in data and _is_utf8(data):
            return ["text", keys(_cut(data, 100_000))]
        return ["base64", keys(_cut(base64.b64encode(data), 100_000))]

    request = {
        "protocol": 1,
        "timeout": program.timeout,
        "args": list(program.args),
        "code": put("code", program.source),
        "stdin": None if program.stdin is None else put("stdin", program.stdin),
        "files": {name: put("file", data) for name, data in program.files.items()},
        "cpus": program.cpus,
        "keep_home": program.keep_home,
        "limits": {
            "output": program.output,
            "files": program.max_files,
            "file_bytes": program.file_bytes,
            "log_bytes": program.log_bytes,
        },
    }
    return {"request": json.dumps(request, separators=(",", ":")).encode(), "runner": RUNNER.encode(), **values}


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cut(data: bytes, size: int) -> list[bytes]:
    """Split text into pieces of at most `size` bytes, between characters."""
    pieces = []
    while data:
        end = size
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(data[:end])
        data = data[end:]
    return pieces


def environment(base: Path) -> dict[str, str]:
    """The environment of every program here, except for HOME."""
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "TMPDIR": str(base), "GREETING": "h\u00e9llo"}


def command(
    values: Mapping[str, bytes], delivery: Delivery, base: Path, env: Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return the container's command and environment; with a volume, write the files to ``base/app``.

    With stdin, the request is what `stdin_request` returns.
    """
    variables = dict(environment(base) if env is None else env)
    if delivery == "mount":
        app = base / "app"
        app.mkdir()
        for key, value in values.items():
            (app / key).write_bytes(value)
        return [PYTHON, "-u", str(app / "runner")], variables
    if delivery == "attach":
        values = {key: value for key, value in values.items() if key not in ("request", "contents")}
    variables.update({f"GKE_SANDBOX_{key.upper()}": os.fsdecode(value) for key, value in values.items()})
    return [PYTHON, "-u", "-c", FROM_ENVIRONMENT], variables


def stdin_request(values: Mapping[str, bytes]) -> bytes | None:
    """Return what the client writes to stdin, or None if the request is not on stdin."""
    if "wait" not in values:
        return None
    request, contents = values["request"], values["contents"]
    return b"%d %d\n%b%b" % (len(request), len(contents), request, contents)


@contextmanager
def started(
    program: Program, delivery: Delivery = "env", *, base: Path, prefix: Sequence[str] = (), **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a runner in a separate process with TMPDIR `base`, and kill it at the end."""
    values = config_map(program, delivery)
    argv, variables = command(values, delivery, base)
    request = stdin_request(values)
    source = subprocess.DEVNULL if request is None else subprocess.PIPE
    streams = {"stdin": source, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen([*prefix, *argv], env=variables, cwd=base, **streams) as process:
        try:
            if request is not None:
                assert process.stdin is not None
                process.stdin.write(request)
                process.stdin.flush()
            yield process
        finally:
            process.kill()


def run(
    program: Program | str,
    delivery: Delivery = "env",
    *,
    values: Mapping[str, bytes] | None = None,
    env: Mapping[str, str] | None = None,
    base: Path | None = None,
    prefix: Sequence[str] = (),
    packed: bool = False,
) -> Ran:
    """Run a program to its end. `values` and `env` replace the ConfigMap and the environment."""
    if isinstance(program, str):
        program = Program(program)
    with tempfile.TemporaryDirectory(prefix="runner-") as fresh:
        base = base or Path(fresh)
        if values is None:
            values = config_map(program, delivery, packed=packed)
        argv, variables = command(values, delivery, base, env)
        given = stdin_request(values)
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        done = subprocess.run([*prefix, *argv], env=variables, cwd=base, capture_output=True, timeout=50, **source)
    return Ran(read_frames(done.stdout), done.returncode, done.stdout, done.stderr)


class Lifeline:
    """Detects the end of all processes of a program, which keep a FIFO open."""

    def __init__(self, base: Path) -> None:
        path = base / "lifeline"
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # Prepended to a program. Its children inherit `line`, also over exec if it is made inheritable.
        self.prelude = (
            f"import os\nline = os.open({str(path)!r}, os.O_WRONLY)\nos.set_inheritable(line, True)\n"
            "os.write(line, b'alive\\n')\n"
        )

    def __enter__(self) -> Lifeline:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait_for(self, word: bytes) -> None:
        """Wait until a process has written `word` to the FIFO."""
        seen = b""
        while word not in seen:
            assert select.select([self._fd], [], [], 20)[0], f"{word!r} did not come, only {seen!r}"
            seen += os.read(self._fd, 4096)

    def is_cut(self) -> bool:
        """Return whether every process that kept the FIFO open ends within 5 seconds."""
        while select.select([self._fd], [], [], 5)[0]:
            data = os.read(self._fd, 4096)
            if not data:
                return True
        return False

"""The process in the pod that runs one Python program and writes its output as frames to stdout.

It is started as ``python3 -u -c`` or, with a volume, ``python3 -u /app/runner`` as pid 1 of a container. Its
request comes from environment variables, from files next to it, or, if GKE_SANDBOX_WAIT is set, from stdin. It
forks: the child runs the program in the same interpreter, as ``python3 -u main.py`` would; the parent forwards its
two pipes, enforces the limits and collects files. It uses only the standard library of Python 3.8 or newer.

A frame is RS kind SP length [SP JSON] LF payload LF. Output of many lines is compressed: each line costs 46 bytes
on the node's disk, and an HTTP chunk to the client. The exit status is that of the program, 128+N for signal N,
or 124 at the time limit. Without an ``exit`` frame it is 143 after SIGTERM, or 125 if the runner failed. The last
``err`` frame is then ``gke-sandbox: the program was not started: REASON`` (invalid request, no writable directory,
no process available) or, after the fork, ``gke-sandbox: the runner failed: REASON``.

With stdin, the ``start`` frame follows the complete request. If stdin ends earlier, or no request comes within
GKE_SANDBOX_WAIT seconds, the ``err`` frame proves that the program was not started; an empty log would not,
because logs are rotated. Without one byte of a request the runner exits with 0. After the ``exit`` frame it waits
for one byte or the end of stdin, for at most 10 seconds: the kubelet drops output that a slow client has not read
10 seconds after the end of the container.

Differences from a plain start: ``sys.orig_argv`` and ``/proc/self/environ`` are those of the runner; below the
program's outermost frame are two frames of the runner (one with a volume), which tracebacks omit, but which count
for the recursion limit and appear in ``traceback.print_stack()``; a few modules are already imported; the program
is a session leader; stdout is a buffer in shared memory (see `Ring`), so ``os.write``, ``os.close``, ``os.dup``
and ``os.dup2`` are wrapped, and there is an audit hook. The runner isolates nothing: the sandbox contains both
runner and program.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # the current directory: its files must not shadow modules of the standard library

import os
import select
import time
from io import FileIO, TextIOWrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn
else:
    # The official images have no .pyc files: compiling `signal` (enum) and `json` (re) takes 20 to 50 ms per
    # start. Their C modules take half a millisecond.
    import _signal as signal

PROTOCOL = 1
INTERVAL = 0.05  # seconds between two frames of a stream, unless FRAME bytes are buffered
FRAME = 32 << 10
CHUNK = 64 << 10
PIPE = 1 << 20  # capacity of a pipe in bytes: /proc/sys/fs/pipe-max-size
MAX_ENTRIES = 20_000  # directory entries that are searched for files
ACKNOWLEDGE = 10.0  # seconds to wait until the client has read the exit frame
MAX_NAMED, NAMES_ROOM = 100, 6000  # number of omitted files that the exit frame names, and their size in bytes
EXIT_ROOM = NAMES_ROOM + 512  # bytes of the log that are reserved for the exit frame
SMALL = 2 << 10  # while the log is small, so are frames that are not compressed: an operator can read them
READABLE = 64 << 10
EARLY = 512  # bytes on the node's disk that a frame of each stream costs at least, and some of its payload
RING = 1 << 20
WRITTEN, READ, IDLE, CLOSED = range(4)  # the words at the start of the ring
STDOUT = 1, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"
LINE = 46  # bytes that the container runtime adds to a line on the node's disk, and to each 16 KiB of it
FILE_ROOM = 256  # bytes of the log that are reserved for each file, in addition to its content
ROOM = 256 << 10  # bytes of the log that are reserved for headers and for frames that are not full
CPU_COUNTS = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS LOKY_MAX_CPU_COUNT PYTHON_CPU_COUNT".split()
BELL = signal.SIGURG  # the program has written to the ring, which was not read; ignored by default
SIGNALS = signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, BELL
OTHERS = signal.valid_signals() - {*SIGNALS, signal.SIGKILL, signal.SIGSTOP}


def pack(data: bytes) -> bytes:
    from binascii import b2a_base64
    from zlib import compress

    return b2a_base64(compress(data, 1), newline=False)


def worst(size: int) -> int:
    """Return the size of output or of a file on the node's disk, if it is large and its content the worst."""
    return size * 4 // 3 + size // 64


class Log:
    """Writes frames to fd 1, at most `limit` bytes as stored on the node's disk."""

    used, limit = 0, float("inf")
    reserved = 0  # for files
    slack = 0.0  # what was left of the log at the start, in addition to everything that is reserved

    def write(self, kind: bytes, payload: bytes, meta: bytes = b"") -> bool:
        """Write a frame. Return False if it does not fit."""
        frame, size = self.encoded(kind, payload, meta)
        if self.used + size > self.limit:
            return False
        self.used += size
        view = memoryview(frame)
        while view:
            try:
                view = view[os.write(1, view) :]
            except BlockingIOError:  # the runtime has made the log non-blocking, and it is full
                poller = select.poll()
                poller.register(1, select.POLLOUT)
                poller.poll(100)
        return True

    def encoded(self, kind: bytes, payload: bytes, meta: bytes = b"") -> tuple[bytes, int]:
        """Return a frame, compressed if that is smaller on the node's disk, and its size there."""
        frame, size = self.frame(kind, payload, meta)
        if kind in (b"out", b"err") and (size > SMALL or self.used > READABLE):
            packed, its_size = self.frame(kind, pack(payload), b' {"encoding": "zlib"}')
            if its_size < size:
                return packed, its_size
        return frame, size

    @staticmethod
    def frame(kind: bytes, payload: bytes, meta: bytes) -> tuple[bytes, int]:
        frame = b"\x1e%b %d%b\n%b\n" % (kind, len(payload), meta, payload)
        return frame, len(frame) + LINE * (frame.count(b"\n") + len(frame) // 16384)

    def interval(self, streams: list[Stream], seconds: float) -> float:
        """Return the time until the next frame that is not full; `seconds` is the remaining time.

        Such a frame can cost much more than its payload. The log must always have room for everything that the
        program may still write, so when half of what is left over is used, spread the other half over the time.
        """
        reserved = self.reserved + sum(worst(stream.left + len(stream.waiting)) for stream in streams)
        slack = self.limit - self.used - reserved
        self.slack = self.slack or slack
        if slack > self.slack / 2:
            return INTERVAL
        return max(INTERVAL, seconds if slack <= 0 else min(seconds, seconds * EARLY / slack))

    def fail(self, why: str, code: int = 125) -> NoReturn:
        self.limit, self.used = float("inf"), 0
        try:
            self.write(b"err", b"gke-sandbox: %b\n" % why.encode("utf-8", "replace"))
        finally:
            os._exit(code)


class Ring:
    """A buffer for stdout in memory that program and runner share: under gVisor, a system call takes 10 to 30 us.

    Whatever the program has written is there, even if it is killed. The runner reads it every 50 ms, or when the
    program sends it a signal, because the buffer was not read or is full. Other processes and code that is not
    Python write to the pipe. So that the order is kept, the program closes the ring before it starts a process or
    uses the pipe itself, and the runner closes it as soon as there is anything in the pipe. From then on, the
    program writes to the pipe only, and what is in the ring is older.
    """

    def __init__(self) -> None:
        from _thread import RLock
        from mmap import mmap

        memory = memoryview(mmap(-1, 64 + RING))
        self.words, self.data = memory[:64].cast("Q"), memory[64:]
        self.words[IDLE] = 1
        self.runner, self.lock, self.at = os.getpid(), RLock(), 0

    def take(self) -> bytes:
        """Return what the program has written. It may have written anything to the words, too."""
        end, start = self.words[WRITTEN], self.at
        with self.lock:  # a memory barrier
            size = end - start
        self.at, start = end, start % RING
        if not 0 < size <= RING:
            return b""
        data = bytes(self.data[start : start + size])
        data += self.data[: size - len(data)]
        with self.lock:
            self.words[READ] = end
        return data

    def put_short(self, data: bytes) -> bool:
        """Write as the program, if nothing has to be divided and the runner is not idle: this is the fast path."""
        words, size = self.words, len(data)
        written = words[WRITTEN]
        at = written % RING
        if at + size > RING or written + size > words[READ] + RING or words[IDLE]:
            return False
        self.data[at : at + size] = data
        with self.lock:  # a memory barrier, although this thread has the lock
            words[WRITTEN] = written + size
        return True

    def put(self, data: memoryview) -> None:
        """Write as the program."""
        words = self.words
        while data:
            written = words[WRITTEN]
            room = RING - written + words[READ]
            if room > 0:
                at, piece = written % RING, data[:room]
                rest = len(piece[RING - at :])
                self.data[at : at + len(piece) - rest] = piece[: RING - at]
                self.data[:rest] = piece[RING - at :]
                with self.lock:
                    words[WRITTEN] = written + len(piece)
                data = data[len(piece) :]
            if words[IDLE] or data:
                words[IDLE] = 0
                os.kill(self.runner, BELL)
            if data:
                time.sleep(0.001)

    def close(self, *_: Any) -> None:
        self.words[CLOSED] = 1


class Stdout(FileIO):
    """The program's stdout. It is a file, as it is with ``python3 -u``, but uses the ring until that is closed."""

    ring: Ring

    def write(self, data: Any) -> int:
        ring = self.ring
        if ring.words[CLOSED] or self.closed or ring.lock._is_owned():  # type: ignore[attr-defined]
            return super().write(data) or 0
        with ring.lock:
            if type(data) is bytes and ring.put_short(data):
                return len(data)
            with memoryview(data).cast("B") as view:
                ring.put(view)
                return len(view)

    def fileno(self) -> int:
        self.ring.close()
        return super().fileno()


def share(ring: Ring) -> None:
    """Let the program write to the ring, until it does something that depends on the pipe."""

    def guard(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if 1 in args[:2]:
                ring.close()
            return function(*args, **options)

        call.__name__ = call.__qualname__ = function.__name__
        call.__module__, call.__doc__ = function.__module__, function.__doc__
        return call

    def hook(event: str, args: Any) -> None:
        if event == "open":
            depends = args[0] in STDOUT
        elif event == "import":
            depends = args[0].startswith("multiprocessing.popen")
        else:
            depends = event in ("subprocess.Popen", "os.system", "os.posix_spawn")
        if depends:
            ring.close()

    for name in ("write", "close", "dup", "dup2"):
        function = guard(getattr(os, name))
        for module in (os, sys.modules["posix"]):
            setattr(module, name, function)
    os.register_at_fork(before=ring.close)
    given = sys.stdout
    raw = Stdout(1, "wb", closefd=False)
    Stdout.__name__, Stdout.__qualname__, Stdout.__module__ = "FileIO", "FileIO", "_io"
    raw.ring, raw.name = ring, given.name
    options = {"encoding": given.encoding, "errors": given.errors, "newline": "\n", "write_through": True}
    stdout: Any = TextIOWrapper(raw, **options)  # type: ignore[arg-type]
    stdout.mode = "w"
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    sys.addaudithook(hook)


class Stream:
    """One of the program's two pipes: its output is buffered and forwarded in frames."""

    def __init__(self, kind: bytes, limit: int) -> None:
        self.kind, self.left, self.dropped = kind, limit, 0
        self.waiting, self.due = b"", 0.0
        self.fd, self.end = os.pipe()
        self.ring: Any = None

    def read(self) -> int:
        """Read once from the pipe. Return the number of bytes, 0 at the end of the stream."""
        data = os.read(self.fd, CHUNK)
        if data and self.ring:
            self.ring.close()
            self.read_ring()
        self.keep(data)
        return len(data)

    def read_ring(self) -> None:
        if self.ring:
            self.keep(self.ring.take())

    def keep(self, data: bytes) -> None:
        kept = data[: self.left]
        self.left -= len(kept)
        self.dropped += len(data) - len(kept)
        self.waiting += kept

    def rest(self) -> Any:
        """Return the time in ms until the ring must be read again, or None: the program will send a signal."""
        if not self.ring or self.ring.words[IDLE]:
            return None
        self.ring.words[IDLE] = 1
        return INTERVAL * 1000  # in case that the program is writing at this moment, and has not seen it

    def flush(self, log: Log, interval: float = INTERVAL) -> None:
        """Forward the buffered output. When the log is full, drop this and all further output."""
        data = self.waiting
        while data and not log.write(self.kind, data):
            data = data[: len(data) // 2]
            self.left = 0
        self.dropped += len(self.waiting) - len(data)
        self.waiting, self.due = b"", time.monotonic() + interval


def take_variables() -> dict[str, bytes]:
    """Remove this runner's environment variables and return them, with short names in lower case."""
    names = [name for name in os.environb if name.startswith(b"GKE_SANDBOX_")]
    return {name[12:].decode().lower(): os.environb.pop(name) for name in names}


def wait_for_stdin(seconds: float) -> bool:
    """Wait until stdin has data or has ended. Return False if the time is over."""
    poller = select.poll()
    poller.register(0, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def receive(seconds: float, log: Log) -> tuple[bytes, memoryview]:
    """Return the request and its contents from stdin, after a line with their lengths."""
    # Import now what a request needs, because a program may be waited for.
    from binascii import a2b_base64, b2a_base64  # noqa: F401
    from zlib import compress  # noqa: F401

    parse("{}")
    if not wait_for_stdin(seconds):
        log.fail("the program was not started: no request came", 0)
    data, size, start = bytearray(), 0, 0
    while not start or len(data) < size:
        more = os.read(0, max(size - len(data), CHUNK))
        if not more:
            if data:
                raise EOFError("stdin ended after %d bytes of the request" % len(data))
            log.fail("the program was not started: stdin ended without a request", 0)
        data += more
        if not start and b"\n" in data:
            start = data.index(b"\n") + 1
            request, contents = map(int, data[:start].split())
            size = start + request + contents
    view = memoryview(data)[start:size]
    return bytes(view[:request]), view[request:]


def load(pieces: dict[str, bytes], contents: memoryview) -> dict[str, Any]:
    """Load the request from environment variables, from stdin (`contents`), or from files next to this one."""

    def piece(key: Any) -> bytes:
        nonlocal contents
        if isinstance(key, int):
            data, contents = contents[:key], contents[key:]
            return bytes(data)
        if "request" in pieces:
            return pieces[key]
        with open(os.path.join(os.path.dirname(sys.argv[0]), key), "rb") as file:
            return file.read()

    def content(encoding: str, keys: list[str]) -> bytes:
        data = b"".join(map(piece, keys))
        if encoding in ("text", "raw"):
            return data
        if encoding == "base64":
            from binascii import a2b_base64

            return a2b_base64(data)
        from zlib import decompress

        return decompress(data)

    try:
        request: dict[str, Any] = parse(piece("request").decode())
        if request["protocol"] != PROTOCOL:
            raise ValueError("its protocol is %s, but this runner supports %d" % (request["protocol"], PROTOCOL))
        request["code"] = content(*request["code"])
        request["stdin"] = request["stdin"] and content(*request["stdin"])
        request["files"] = {name: content(*parts) for name, parts in request["files"].items()}
        os.environ.update(request.get("env", {}))
    except Exception as error:
        raise ValueError("cannot read the request: %s: %s" % (type(error).__name__, error)) from None
    return request


def parse(text: str) -> Any:
    """Parse JSON without importing `json`."""
    try:
        from _json import make_scanner
    except ImportError:
        from json import loads

        return loads(text)

    class Context:
        strict, parse_float, parse_int = True, float, int
        object_hook = object_pairs_hook = parse_constant = None

    return make_scanner(Context)(text, 0)[0]  # type: ignore[arg-type]


def signature(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class Workspace:
    """New directories for the program: `work` with its files, TMPDIR and HOME."""

    def __init__(self, request: dict[str, Any]) -> None:
        failures = []
        for base in filter(None, (os.environ.get("TMPDIR"), "/tmp", "/dev/shm")):
            try:
                return self.create(os.path.abspath(base) + "/sandbox", request)
            except OSError as error:
                failures.append(str(error))
        raise OSError("no directory is writable: " + "; ".join(failures))

    def create(self, root: str, request: dict[str, Any]) -> None:
        if os.path.lexists(root):
            root += "-" + os.urandom(8).hex()
        self.work, tmp, home, stdin = (root + name for name in ("/work", "/tmp", "/home", "/stdin"))
        for folder in (root, self.work, tmp, home):
            os.mkdir(folder, 0o700)
        # Set the mtime of inputs to one second ago, so that any write changes it.
        past = time.time_ns() - 10**9
        self.inputs = {}
        for name, data in {**request["files"], "main.py": request["code"]}.items():
            path = os.fsencode(self.work) + b"/" + name.encode()
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
            os.utime(path, ns=(past, past))
            self.inputs[name] = signature(os.stat(path))
        with open(stdin, "wb") as file:
            file.write(request["stdin"] or b"")
        self.stdin = os.open(os.devnull if request["stdin"] is None else stdin, os.O_RDONLY)
        os.unlink(stdin)
        self.set_environment(request, tmp, home)

    def set_environment(self, request: dict[str, Any], tmp: str, home: str) -> None:
        """Set TMPDIR, HOME unless it is usable or the caller has set it, and what the image does not set."""
        env = os.environ
        env["TMPDIR"] = tmp
        given = env.get("HOME", "")
        usable = given != "/" and os.path.isdir(given) and os.access(given, os.W_OK | os.X_OK)
        if not (usable or request.get("keep_home")):
            env["HOME"] = home
        user = env.get("LOGNAME") or env.get("USER")
        if not user:
            try:
                from pwd import getpwuid

                user = getpwuid(os.getuid())[0]
            except (ImportError, KeyError):
                user = "sandbox"
        unset = {**dict.fromkeys(CPU_COUNTS, request.get("cpus")), "USER": user, "LOGNAME": user}
        for name, value in unset.items():
            if value and not env.get(name):
                env[name] = str(value)

    def find(self) -> tuple[dict[str, int], list[Any]]:
        """Return the regular files that were created or changed, with their sizes, and what was omitted: tuples
        (name, reason, size). An unreadable directory is one omission, and so is all after 20,000 entries.
        """
        found: dict[str, int] = {}
        seen, omitted = 0, []
        folders = [] if os.path.islink(self.work) else [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(os.path.join(self.work, folder)) as entries:
                    for entry in entries:
                        seen += 1
                        if seen > MAX_ENTRIES:
                            omitted.append((folder or ".", "not_searched", None))
                            return found, omitted
                        name = os.path.join(folder, entry.name)
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name != "__pycache__":
                                folders.append(name)
                        elif entry.is_file(follow_symlinks=False) and name != "main.py":
                            stat = entry.stat(follow_symlinks=False)
                            if signature(stat) != self.inputs.get(name):
                                found[name] = stat.st_size
            except FileNotFoundError:
                continue  # the program removed it
            except OSError:
                omitted.append((folder or ".", "unreadable", None))
        return found, omitted

    def collect(self, count: int, room: int, log: Log) -> list[Any]:
        """Write a frame for each file, at most `count` and `room` bytes. Return what was omitted, as `find`.

        A file that does not fit into the log counts against both limits, so that the work is bounded.
        """
        found, omitted = self.find()
        for name, size in sorted(found.items()):
            why = "too_large" if size > room else "too_many"
            if count and size <= room:
                why = self.send(name, size, log)
                if why in ("", "log_full"):
                    count, room = count - 1, room - size
            if why:
                omitted.append((name, why, size))
        return omitted

    def send(self, name: str, size: int, log: Log) -> str:
        """Write the frame of a file. Return an empty string, or why it is omitted."""
        try:
            quoted = name.replace("\\", "\\\\").replace('"', '\\"').encode()
            fd = os.open(os.path.join(self.work, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (OSError, UnicodeError) as error:
            return "unreadable" if isinstance(error, OSError) else "refused_name"
        with open(fd, "rb") as file:
            if min(quoted) < 32:
                return "refused_name"
            payload = pack(file.read(size))
        return "" if log.write(b"file", payload, b' "%b"' % quoted) else "log_full"


def named(omitted: list[Any]) -> bytes:
    """Return an entry of the exit frame with the first omitted files, if there are any."""
    text = ""
    for each in omitted[:MAX_NAMED]:
        from json import dumps

        entry = dumps(each)
        if len(text) + len(entry) < NAMES_ROOM:
            text += ", " + entry if text else entry
    return b', "named": [%b]' % text.encode() if text else b""


def kill(program: int) -> None:
    """Send SIGKILL to all processes of the program: as pid 1 to every other process, else to its process group."""
    try:
        if os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)
        else:
            os.waitid(os.P_PID, program, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # fails if the pid is not our child
            os.kill(program, signal.SIGKILL)
            os.killpg(program, signal.SIGKILL)
    except OSError:
        return  # no such process, or no process group yet


def reap(program: int) -> bool:
    """Reap zombies except the program, whose pid must stay in use until its process group is killed.

    Return True if the program has ended, even if other zombies remain, or if there are no children.
    """
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not program or not os.waitid(os.P_PID, program, how):
        try:
            other = os.waitid(os.P_ALL, 0, how)
        except ChildProcessError:
            break
        if other is None:
            return False
        if other.si_pid != program:
            os.waitpid(other.si_pid, 0)
    return True


def watch(program: int, timeout: float, streams: list[Stream], log: Log) -> tuple[int, set[int]]:
    """Forward output until the program ends, kill its processes, drain. Return its wait status and our signals."""
    caught = set()
    deadline = time.monotonic() + timeout

    def on_signal(number: int, _frame: Any) -> None:
        if number == signal.SIGALRM and time.monotonic() < deadline:
            return  # sent by the program
        caught.add(number)
        if number not in (signal.SIGCHLD, BELL):
            kill(program)  # immediately: the main loop may be blocked by a log without a reader

    wake, alarm = os.pipe()
    for fd in (wake, alarm):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    for number in OTHERS:  # the program can send them
        signal.signal(number, signal.SIG_IGN)
    for number in SIGNALS:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Repeat, in case the first SIGKILL misses a new process.
    signal.setitimer(signal.ITIMER_REAL, max(timeout, 0.001), 0.1)

    sources = {stream.fd: stream for stream in streams}
    poller, waker = select.poll(), select.poll()
    for fd in (wake, *sources):
        poller.register(fd, select.POLLIN)
    waker.register(wake, select.POLLIN)
    ended = reap(program)
    while not ended:
        for stream in streams:
            stream.read_ring()
        waiting = [stream for stream in streams if stream.waiting]
        rest = min((stream.due for stream in waiting), default=0) - time.monotonic()
        if waiting and (rest <= 0 or any(len(stream.waiting) >= FRAME for stream in waiting)):
            interval = log.interval(streams, deadline - time.monotonic())
            for stream in waiting:  # both together, to keep their order as far as two pipes can
                stream.flush(log, interval)
            continue
        if waiting:
            waker.poll(2)  # 2 ms, to collect the output of a program that writes single bytes
        for fd, _event in poller.poll(rest * 1000 if waiting else streams[0].rest()):
            if fd == wake:
                os.read(wake, CHUNK)
                ended = reap(program)
            elif sources[fd].read() == 0:
                poller.unregister(fd)

    # The rest is fast and ends with the exit frame, so ignore SIGTERM from now on.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    kill(program)
    status = os.waitpid(program, 0)[1]
    last = time.monotonic() + 1
    while os.getpid() == 1 and not reap(0) and time.monotonic() < last:
        kill(program)
        time.sleep(0.001)
    poller.unregister(wake)
    for _ in range(2 * PIPE // CHUNK):  # bounded: a process that we cannot kill may still be writing
        for fd, _event in poller.poll(0):
            if sources[fd].read() == 0:
                poller.unregister(fd)
        for stream in streams:
            stream.read_ring()
            stream.flush(log)
    return status, caught


def exec_program(work: str, args: list[str], code: bytes, fds: list[int], ring: Any) -> tuple[Any, dict[str, Any]]:
    """Make this process equal to ``python3 -u main.py`` before its first line runs."""
    from _frozen_importlib_external import SourceFileLoader

    os.setsid()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(3, max(fds) + 1)
    if not sys.stdin.seekable():  # the request came from there
        given, sys.stdin = sys.stdin, open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)
        sys.__stdin__, sys.stdin.buffer.raw.name = sys.stdin, given.name  # type: ignore
    os.chdir(work)
    folder = os.getcwd()
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, folder)
    sys.argv[:] = ["main.py", *args]
    name = folder + "/main.py" if sys.version_info >= (3, 9) else "main.py"
    main = type(sys)("__main__")
    namespace = vars(main)
    if "__annotations__" in globals():  # before Python 3.14
        namespace["__annotations__"] = {}
    namespace.update(__builtins__=__builtins__, __file__=name, __cached__=None)
    namespace["__loader__"] = SourceFileLoader("__main__", name)
    sys.modules["__main__"] = main
    # Errors in a file are reported differently from errors in a string: let Python itself report them, with
    # warnings.
    warnings: list[str] = []
    stderr, sys.stderr = sys.stderr, type("Held", (), {"write": warnings.append})
    try:
        program = compile(code, name, "exec", dont_inherit=True)
    except Exception:
        os.execv(sys.executable, [sys.executable, "-u", "main.py", *args])
    sys.stderr = stderr
    for warning in warnings:
        stderr.write(warning)
    if ring and type(sys.stdout) is TextIOWrapper:
        share(ring)
    return program, namespace


def unwrap(hook: Any) -> None:
    """Make the interpreter report an uncaught exception without the runner's frames."""

    def report(kind: Any, value: BaseException, trace: Any) -> None:
        sys.excepthook = hook
        while trace and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        last = trace
        while last:
            while last.tb_next and last.tb_next.tb_frame.f_globals is globals():  # of `share` and `Stdout`
                last.tb_next = last.tb_next.tb_next
            last = last.tb_next
        value.__traceback__ = sys.last_traceback = trace
        try:
            hook(kind, value, trace)
        except Exception as error:  # reported as by the interpreter, without this frame
            error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(error), error, error.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(kind, value, trace)

    sys.excepthook = report


def main() -> tuple[Any, dict[str, Any]]:
    """Run the request. Return only in the child: the program's code and the namespace to run it in."""
    log = Log()
    try:
        pieces, contents = take_variables(), memoryview(b"")
        on_stdin = "wait" in pieces
        try:
            ring = Ring()  # before a program is waited for: under gVisor, this takes some milliseconds
        except (ImportError, OSError):
            ring = None  # a little slower
        if on_stdin:
            pieces["request"], contents = receive(float(pieces["wait"]), log)
        log.write(b"start", b'{"protocol": %d, "python": "%d.%d.%d"}' % (PROTOCOL, *sys.version_info[:3]))
        request = load(pieces, contents)
        del pieces, contents
        limits = request["limits"]
        log.limit = limits["log_bytes"] - EXIT_ROOM
        log.reserved = worst(limits["file_bytes"]) + FILE_ROOM * limits["files"] + ROOM
        workspace = Workspace(request)
        del request["files"], request["stdin"]  # they may be large
        streams = [Stream(kind, limits["output"]) for kind in (b"out", b"err")]
        streams[0].ring = ring
        fds = [workspace.stdin, *(stream.end for stream in streams)]
        # Until the handlers are set; the program does not inherit them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        started = time.monotonic()
        program = os.fork()
    except Exception as why:
        log.fail("the program was not started: %s" % why)
    if program == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return exec_program(workspace.work, request["args"], request["code"], fds, streams[0].ring)
    try:
        for fd in fds:
            os.close(fd)
        status, caught = watch(program, request["timeout"], streams, log)
        seconds = time.monotonic() - started
        if signal.SIGTERM in caught:
            os._exit(143)
        died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status)
        timed_out = died == signal.SIGKILL and signal.SIGALRM in caught
        omitted = workspace.collect(limits["files"], limits["file_bytes"], log)
        log.limit = float("inf")
        numbers = b'"code": null, "signal": %d' % died if died else b'"code": %d, "signal": null' % code
        dropped = b'"out": %d, "err": %d, "files": %d' % (streams[0].dropped, streams[1].dropped, len(omitted))
        ending = numbers, b"true" if timed_out else b"false", seconds, dropped + named(omitted)
        log.write(b"exit", b'{%b, "timed_out": %b, "seconds": %.3f, "dropped": {%b}}' % ending)
        if on_stdin:
            wait_for_stdin(ACKNOWLEDGE)
        os._exit(124 if timed_out else died + 128 if died else code)
    except BaseException as error:
        kill(program)
        log.fail("the runner failed: %s: %s" % (type(error).__name__, error))


if __name__ == "__main__":
    try:
        exec(*main())
    except SystemExit:
        raise
    except BaseException:
        unwrap(getattr(sys, "excepthook", sys.__excepthook__))
        raise

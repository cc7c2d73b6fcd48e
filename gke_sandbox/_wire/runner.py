"""The program in the pod: runs one Python program and writes what it does as frames to its own stdout.

It is text in a ConfigMap, started as ``python3 -u -c`` (by environment) or ``python3 -u /app/runner`` (by mount),
as pid 1 of a container. It forks: the child becomes the program, in this same interpreter, as ``python3 -u
main.py`` would have it; the parent pumps its two pipes, keeps the limits and collects files. Standard library
only, Python 3.8 and later.

A frame is RS kind SP length [SP JSON] LF payload LF. Exit status: the program's own, 128+N for signal N, 124 at
the time limit. Without an ``exit`` frame: 143 after SIGTERM; 125 when the runner itself failed (a bad request,
nothing writable, no process to be had), and the last ``err`` frame says why.

Other than in a plain start: ``sys.orig_argv`` and ``/proc/self/environ`` are the runner's; beneath the program's
outermost frame lie two of the runner's (one by mount), which tracebacks leave out, but which cost that much depth
of recursion and which ``traceback.print_stack()`` shows; a few modules are already imported; the program leads a
session. Nothing here is a jail: the sandbox is around runner and program alike.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # where we were started: nothing there may stand in for a module of the standard library

import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn
else:
    # The official images have no .pyc files: `signal` (enum) and `json` (re) would be compiled at every start,
    # for 20 to 50 ms. The C modules beneath them take half a millisecond.
    import _signal as signal

PROTOCOL = 1
INTERVAL = 0.05  # seconds between two frames of a stream, unless FRAME bytes wait
FRAME = 32 << 10
CHUNK = 64 << 10
PIPE = 1 << 20  # bytes that a pipe can hold: /proc/sys/fs/pipe-max-size
ENTRIES = 20_000  # directory entries that are looked at for files
EXIT_ROOM = 512  # bytes of the log that are kept for the exit frame
SIGNALS = signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM


class Log:
    """Frames on fd 1, at most `limit` bytes of them as they lie on the node's disk."""

    used, limit = 0, float("inf")

    def write(self, kind: bytes, payload: bytes, meta: bytes = b"") -> bool:
        """Write a frame if there is room for it, and say so."""
        frame = b"\x1e%b %d%b\n%b\n" % (kind, len(payload), meta, payload)
        # The container runtime puts up to 45 bytes before each line, and cuts lines at 16 KiB with a newline.
        size = len(frame) + 46 * (frame.count(b"\n") + len(frame) // 16384)
        if self.used + size > self.limit:
            return False
        self.used += size
        view = memoryview(frame)
        while view:
            view = view[os.write(1, view) :]
        return True

    def fail(self, why: str) -> NoReturn:
        try:
            self.write(b"err", b"gke-sandbox: %b\n" % why.encode("utf-8", "replace"))
        finally:
            os._exit(125)


class Stream:
    """One of the program's two pipes: what comes is gathered and passed on in frames."""

    def __init__(self, kind: bytes, limit: int) -> None:
        self.kind, self.left, self.dropped = kind, limit, 0
        self.waiting, self.due = b"", 0.0
        self.fd, self.end = os.pipe()

    def read(self) -> int:
        """Read once; how many bytes, 0 at the end."""
        data = os.read(self.fd, CHUNK)
        kept = data[: self.left]
        self.left -= len(kept)
        self.dropped += len(data) - len(kept)
        self.waiting += kept
        return len(data)

    def flush(self, log: Log) -> None:
        """Pass on what waits. From where the log is full, all is dropped."""
        data = self.waiting
        while data and not log.write(self.kind, data):
            data = data[: len(data) // 2]
            self.left = 0
        self.dropped += len(self.waiting) - len(data)
        self.waiting, self.due = b"", time.monotonic() + INTERVAL


def load() -> dict[str, Any]:
    """The request, contents as bytes: out of the environment, where none of it stays, or of files beside this."""
    pieces = {}
    for name in [name for name in os.environb if name.startswith(b"GKE_SANDBOX_")]:
        pieces[name[12:].lower()] = os.environb.pop(name)

    def piece(key: str) -> bytes:
        if b"request" in pieces:
            return pieces[key.encode()]
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
            raise ValueError("it is in protocol %s, this runner speaks %d" % (request["protocol"], PROTOCOL))
        request["code"] = content(*request["code"])
        request["stdin"] = request["stdin"] and content(*request["stdin"])
        request["files"] = {name: content(*parts) for name, parts in request["files"].items()}
    except Exception as error:
        raise ValueError("the request cannot be read: %s: %s" % (type(error).__name__, error)) from None
    return request


def parse(text: str) -> Any:
    """JSON, without `json`."""
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


class Place:
    """Fresh directories for the program: `work` with its files, and beside it its TMPDIR and HOME."""

    def __init__(self, request: dict[str, Any]) -> None:
        failures = []
        for base in filter(None, (os.environ.get("TMPDIR"), "/tmp", "/dev/shm")):
            try:
                return self.furnish(os.path.abspath(base) + "/sandbox", request)
            except OSError as error:
                failures.append(str(error))
        raise OSError("nothing is writable: " + "; ".join(failures))

    def furnish(self, root: str, request: dict[str, Any]) -> None:
        if os.path.lexists(root):
            root += "-" + os.urandom(8).hex()
        self.work, tmp, home, stdin = (root + name for name in ("/work", "/tmp", "/home", "/stdin"))
        for folder in (root, self.work, tmp, home):
            os.mkdir(folder, 0o700)
        # Inputs are a second old: whatever is written into them, and however soon, changes their mtime.
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
        os.environ["TMPDIR"] = tmp
        if os.environ.get("HOME", "/") in ("", "/"):
            os.environ["HOME"] = home

    def find(self) -> tuple[dict[str, int], int]:
        """Regular files that were made or changed, with their sizes; and how much could not be looked at.

        A directory that cannot be read counts as one, and so does all that lies behind the first 20,000 entries.
        """
        found: dict[str, int] = {}
        seen = unseen = 0
        folders = [] if os.path.islink(self.work) else [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(os.path.join(self.work, folder)) as entries:
                    for entry in entries:
                        seen += 1
                        if seen > ENTRIES:
                            return found, unseen + 1
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
                unseen += 1
        return found, unseen

    def collect(self, count: int, room: int, log: Log) -> int:
        """Write a frame for each file found, at most `count` files and `room` bytes; how many were left out.

        A file for which the log has no more room uses up its part all the same: so the work is bounded, too.
        """
        found, dropped = self.find()
        for name, size in sorted(found.items()):
            dropped += 1
            if count and size <= room:
                try:
                    quoted = name.replace("\\", "\\\\").replace('"', '\\"').encode()
                    fd = os.open(os.path.join(self.work, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                except (OSError, UnicodeError):
                    continue
                from binascii import b2a_base64
                from zlib import compress

                with open(fd, "rb") as file:
                    payload = b2a_base64(compress(file.read(size), 1), newline=False)
                count, room = count - 1, room - size
                if min(quoted) >= 32:
                    dropped -= log.write(b"file", payload, b' "%b"' % quoted)
        return dropped


def kill(program: int) -> None:
    """SIGKILL for all that the program started: as pid 1 for everybody else, otherwise for its process group."""
    try:
        if os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)
        else:
            os.waitid(os.P_PID, program, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # fails if the number is not ours
            os.kill(program, signal.SIGKILL)
            os.killpg(program, signal.SIGKILL)
    except OSError:
        return  # nobody there; or no group yet


def bury(program: int) -> bool:
    """Reap zombies, but not the program: its number must stay taken until its process group is killed.

    Returns True if the program has ended, whoever else is still to be reaped, or if there is nobody at all.
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
    """Pump until the program ends, kill what it left, pump dry. Returns its wait status and the signals we had."""
    caught = set()

    def on_signal(number: int, _frame: Any) -> None:
        caught.add(number)
        if number != signal.SIGCHLD:
            kill(program)  # at once: the pump may be held up by a log that nobody reads

    wake, alarm = os.pipe()
    for fd in (wake, alarm):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    signal.setitimer(signal.ITIMER_REAL, max(timeout, 0.001), 0.1)  # and again, if once is not enough

    sources = {stream.fd: stream for stream in streams}
    poller, waker = select.poll(), select.poll()
    for fd in (wake, *sources):
        poller.register(fd, select.POLLIN)
    waker.register(wake, select.POLLIN)
    ended = bury(program)
    while not ended:
        waiting = [stream for stream in streams if stream.waiting]
        rest = min((stream.due for stream in waiting), default=0) - time.monotonic()
        if waiting and (rest <= 0 or any(len(stream.waiting) >= FRAME for stream in waiting)):
            for stream in waiting:  # both at once: that keeps their order as well as two pipes can
                stream.flush(log)
            continue
        if waiting:
            waker.poll(2)  # a nap, so that a program that writes byte by byte does not wake us for each
        for fd, _event in poller.poll(rest * 1000 if waiting else None):
            if fd == wake:
                os.read(wake, CHUNK)
                ended = bury(program)
            elif sources[fd].read() == 0:
                poller.unregister(fd)

    # What is left to do takes a moment, and ends with the exit frame: SIGTERM has come too late.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    kill(program)
    status = os.waitpid(program, 0)[1]
    patience = time.monotonic() + 1
    while os.getpid() == 1 and not bury(0) and time.monotonic() < patience:
        kill(program)
        time.sleep(0.001)
    poller.unregister(wake)
    for _ in range(2 * PIPE // CHUNK):  # so much and no more: somebody out of our reach may still be writing
        for fd, _event in poller.poll(0):
            if sources[fd].read() == 0:
                poller.unregister(fd)
        for stream in streams:
            stream.flush(log)
    return status, caught


def become(work: str, args: list[str], code: bytes, fds: list[int]) -> tuple[Any, dict[str, Any]]:
    """Make this process what ``python3 -u main.py`` is when its first line runs."""
    from _frozen_importlib_external import SourceFileLoader

    os.setsid()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(3, max(fds) + 1)
    os.chdir(work)
    folder = os.getcwd()
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, folder)
    sys.argv[:] = ["main.py", *args]
    name = folder + "/main.py" if sys.version_info >= (3, 9) else "main.py"
    main = type(sys)("__main__")
    namespace = vars(main)
    if "__annotations__" in globals():  # not from Python 3.14 on
        namespace["__annotations__"] = {}
    namespace.update(__builtins__=__builtins__, __file__=name, __cached__=None)
    namespace["__loader__"] = SourceFileLoader("__main__", name)
    sys.modules["__main__"] = main
    # What Python says of a broken file is not quite what it says of a string: let it say so itself, and all of it.
    warnings: list[str] = []
    stderr, sys.stderr = sys.stderr, type("Held", (), {"write": warnings.append})
    try:
        program = compile(code, name, "exec", dont_inherit=True)
    except Exception:
        os.execv(sys.executable, [sys.executable, "-u", "main.py", *args])
    sys.stderr = stderr
    for warning in warnings:
        stderr.write(warning)
    return program, namespace


def unwrap(hook: Any) -> None:
    """Have the interpreter report the exception that is on its way out without the runner's frames."""

    def report(kind: Any, value: BaseException, trace: Any) -> None:
        sys.excepthook = hook
        while trace and trace.tb_frame.f_globals is globals():
            trace = trace.tb_next
        value.__traceback__ = sys.last_traceback = trace
        try:
            hook(kind, value, trace)
        except Exception as error:  # told as the interpreter would, but for this frame
            error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
            print("Error in sys.excepthook:", file=sys.stderr)
            sys.__excepthook__(type(error), error, error.__traceback__)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(kind, value, trace)

    sys.excepthook = report


def main() -> tuple[Any, dict[str, Any]]:
    """Run the request. Returns in the child alone: the program's code, and the namespace to run it in."""
    log = Log()
    log.write(b"start", b'{"protocol": %d, "python": "%d.%d.%d"}' % (PROTOCOL, *sys.version_info[:3]))
    try:
        request = load()
        limits = request["limits"]
        log.limit = limits["log_bytes"] - EXIT_ROOM
        place = Place(request)
        del request["files"], request["stdin"]  # which may be large
        streams = [Stream(kind, limits["output"]) for kind in (b"out", b"err")]
        fds = [place.stdin, *(stream.end for stream in streams)]
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until we have handlers, which the program never has
        started = time.monotonic()
        program = os.fork()
    except Exception as why:
        log.fail("the program was not run: %s" % why)
    if program == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return become(place.work, request["args"], request["code"], fds)
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
        files = place.collect(limits["files"], limits["file_bytes"], log)
        log.limit = float("inf")
        numbers = b'"code": null, "signal": %d' % died if died else b'"code": %d, "signal": null' % code
        dropped = b'"out": %d, "err": %d, "files": %d' % (streams[0].dropped, streams[1].dropped, files)
        ending = numbers, b"true" if timed_out else b"false", seconds, dropped
        log.write(b"exit", b'{%b, "timed_out": %b, "seconds": %.3f, "dropped": {%b}}' % ending)
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

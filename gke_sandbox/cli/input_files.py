"""What a run is given: the program, its files, its stdin, from the command line and the file system."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from .parsing import UsageError

logger = logging.getLogger("gke_sandbox")

MAX_INPUT_BYTES = 64 << 20
"""No input is read beyond this: a ConfigMap holds 1 MiB, and only zeros compress so well."""

_CHUNK = 1 << 16


def read(path: str) -> bytes:
    """The content of a file, a FIFO or a device. Raises `UsageError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path!r}: {_reason(error)}") from None
    try:
        return _read_all(descriptor, repr(path))
    finally:
        os.close(descriptor)


def read_stdin() -> bytes:
    """All of this command's stdin. Raises `UsageError`."""
    return _read_all(0, "stdin")


def _read_all(descriptor: int, name: str) -> bytes:
    content = bytearray()
    try:
        while chunk := os.read(descriptor, _CHUNK):
            content += chunk
            if len(content) > MAX_INPUT_BYTES:
                raise UsageError(f"{name} is larger than {MAX_INPUT_BYTES >> 20} MiB, more than a run can take")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {_reason(error)}") from None
    return bytes(content)


def read_code(script: str | None, code: str | None) -> bytes:
    """The program: `script` is a path or ``-``, `code` is the program itself. Raises `UsageError`.

    Bytes, not text: what is not UTF-8 is for the Python in the pod to judge, as it does with any script.
    """
    if script is None and code is None:
        raise UsageError("no program given", "name a script, or - for stdin, or give it with -c CODE")
    if script is not None and code is not None:
        raise UsageError(f"two programs given: {script!r} and -c", "arguments for the program go after --")
    if code is not None:
        return os.fsencode(code)
    assert script is not None
    return read_stdin() if script == "-" else read(script)


def read_files(given: Sequence[str]) -> dict[str, bytes]:
    """The input files by the name they have beside the program. Each is PATH or PATH:NAME.

    A path may hold colons itself: the longest part that exists is the path. Raises `UsageError`.
    """
    files: dict[str, bytes] = {}
    for each in given:
        path, name = _path_and_name(each)
        if name in files:
            raise UsageError(f"--file: two files would be called {name!r}", "PATH:NAME gives one another name")
        if os.path.isdir(path):
            raise UsageError(f"--file: {path!r} is a directory", "give each file, as PATH:NAME to keep its place")
        files[name] = read(path)
    return files


def _path_and_name(given: str) -> tuple[str, str]:
    if not os.path.lexists(given):
        cut = given.rfind(":")
        while cut > 0:
            path, name = given[:cut], given[cut + 1 :]
            if os.path.lexists(path):
                return path, _utf8(name)
            cut = given.rfind(":", 0, cut)
    # A directory is told as one, also with a slash behind it.
    return given, _utf8(os.path.basename(given) or given)


def _utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"--file: the name {name!r} is not UTF-8", "PATH:NAME gives it another") from None
    return name


def environment(given: Sequence[tuple[str, str | None]], environ: Mapping[str, str]) -> dict[str, str]:
    """The program's environment. A name without a value is taken from ours, if it is there, as docker does."""
    env: dict[str, str] = {}
    for name, value in given:
        if value is not None:
            env[name] = value
        elif name in environ:
            env[name] = environ[name]
        else:
            logger.info("--env %s: there is no such variable here, so it is not set there", name)
    return env


def _reason(error: OSError | ValueError) -> str:
    """Why it could not be read: the system's own words. ValueError: a NUL in the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

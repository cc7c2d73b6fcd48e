"""Read the program, its files and its stdin from the command line and the file system."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from .parsing import UsageError

logger = logging.getLogger(__name__)

MAX_INPUT_BYTES = 64 << 20
"""Maximum size of one input. A ConfigMap holds 1 MiB, and larger inputs only fit if they are mostly zeros."""

STDIN = 0
_CHUNK_SIZE = 1 << 16


def read(path: str | int, option: str = "") -> bytes:
    """Return the content of a file, FIFO or device, or of `STDIN`. Raises `UsageError` with the `option`."""
    where, name = f"{option}: " if option else "", "stdin" if path == STDIN else repr(path)
    content = bytearray()
    try:
        with open(path, "rb", buffering=0, closefd=path != STDIN) as file:
            while chunk := os.read(file.fileno(), _CHUNK_SIZE):
                content += chunk
                if len(content) > MAX_INPUT_BYTES:
                    raise UsageError(f"{where}{name} is too large; the maximum is {MAX_INPUT_BYTES >> 20} MiB")
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}cannot read {name}: {error_reason(error)}") from None
    return bytes(content)


def read_code(script: str | None, code: str | None) -> bytes:
    """Return the program: the file `script` (``-`` is stdin) or the text `code`. Raises `UsageError`.

    The program is bytes because only the Python in the pod decides whether its encoding is valid.
    """
    if code is not None:
        if script is not None:
            raise UsageError(f"two programs given: {script!r} and -c", "Arguments for the program go after --.")
        return os.fsencode(code)
    if script is None:
        raise UsageError("no program given", "Name a script, or - for stdin, or use -c CODE.")
    return read(STDIN if script == "-" else script)


def read_files(values: Sequence[str]) -> dict[str, bytes]:
    """Return the content of the input files by name. Each value is PATH or PATH:NAME. Raises `UsageError`.

    A path may contain colons: the longest prefix that exists is the path.
    """
    files: dict[str, bytes] = {}
    for value in values:
        path, name = _path_and_name(value)
        if name in files:
            raise UsageError(f"--file: two files have the name {name!r}", "Use PATH:NAME to rename one of them.")
        if os.path.isdir(path):
            raise UsageError(
                f"--file: {path!r} is a directory", "Add each file; use PATH:NAME to keep it in a directory."
            )
        files[name] = read(path, "--file")
    return files


def _path_and_name(value: str) -> tuple[str, str]:
    if not os.path.lexists(value):
        cut = value.rfind(":")
        while cut > 0:
            path, name = value[:cut], value[cut + 1 :]
            if os.path.lexists(path):
                return path, _utf8(name)
            cut = value.rfind(":", 0, cut)
    # A path with a trailing slash has no base name; it is reported as a directory.
    return value, _utf8(os.path.basename(value) or value)


def _utf8(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(f"--file: the name {name!r} is not valid UTF-8", "Use PATH:NAME to rename it.") from None
    return name


def environment(variables: Sequence[tuple[str, str | None]], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of the program.

    A variable without a value is copied from `environ`, and left out if it is not set there, as in docker.
    """
    env: dict[str, str] = {}
    for name, value in variables:
        if value is not None:
            env[name] = value
        elif name in environ:
            env[name] = environ[name]
        else:
            logger.info("--env %s: not set in this environment, so it is left out", name)
    return env


def error_reason(error: OSError | ValueError) -> str:
    """Return the reason of a failed file operation. ValueError means that the path contains a NUL."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

"""The program of one execution: code, files, arguments and standard input, checked when it is made. Pure."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from .._checks import check_content, check_sequence, check_text, describe, entry_path, shorten
from ..errors import SpecError
from ..settings import Settings
from .paths import FileTree, safe_name

MAIN = "main.py"
"""The program's own file in its working directory."""

_MAX_INPUT_FILES = 1000

# The declaration of an encoding, in the first line, or in the second if the first is a comment or blank:
# https://docs.python.org/3/reference/lexical_analysis.html#encoding-declarations
_COOKIE = re.compile(
    r"\A\ufeff?(?:[ \t\f]*(?:#[^\r\n]*)?(?:\r\n?|\n))??[ \t\f]*#[^\r\n]*?coding[:=][ \t]*([-\w.]+)", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A Python program with its input. Text is converted to UTF-8 bytes. Raises `SpecError` for invalid values."""

    code: str | bytes | Path = field(repr=False)
    """The source, run as ``main.py``. A `pathlib.Path` is read.

    Text is sent as UTF-8, and declares that if it declares another encoding.
    """
    files: Mapping[str, str | bytes | Path] = field(default_factory=dict, repr=False)
    """Files in the working directory, by relative path (see `paths.safe_name`). Values that are a `pathlib.Path`
    are read. Default: none."""
    args: Sequence[str] = ()
    """The command-line arguments, ``sys.argv[1:]``. Default: none."""
    stdin: str | bytes | None = field(default=None, repr=False)
    """The standard input. The default, None, is empty."""

    def __post_init__(self) -> None:
        is_text, code = isinstance(self.code, str), _content("code", self.code)
        object.__setattr__(self, "code", _declared_as_utf8(code) if is_text else code)
        object.__setattr__(self, "files", self._checked_files())
        args = check_sequence("args", self.args)
        for i, arg in enumerate(args):
            if "\0" in check_text(f"args[{i}]", arg):
                raise SpecError(f"args[{i}]", "must not contain a NUL")
        object.__setattr__(self, "args", args)
        if self.stdin is not None:
            object.__setattr__(self, "stdin", check_content("stdin", self.stdin))

    def _checked_files(self) -> dict[str, bytes]:
        given = self.files
        if not isinstance(given, Mapping):
            raise SpecError("files", f"must be a mapping of names to contents, not {describe(given)}")
        if len(given) > _MAX_INPUT_FILES:
            raise SpecError(
                "files",
                f"has {len(given)} files; the maximum is {_MAX_INPUT_FILES}",
                hint="Pack them into an archive and unpack it in the program.",
            )
        files: dict[str, bytes] = {}
        taken = FileTree()
        for name, content in given.items():
            path = entry_path("files", name)
            if not isinstance(name, str):
                raise SpecError(path, f"the name must be text, not {describe(name)}")
            try:
                safe = safe_name(name)
                taken.check(safe)
            except ValueError as error:
                raise SpecError(path, f"the name {error}") from None
            if safe == MAIN or safe.startswith(f"{MAIN}/"):
                raise SpecError(path, f"{MAIN} is the name of the program; choose another name")
            taken.add(safe)
            files[safe] = _content(path, content)
        return files

    def digest(self, settings: Settings) -> str:
        """Return the SHA-256 of the program as `settings` run it; see `program_digest`."""
        return program_digest(
            # `Program` has made bytes of these.
            code=cast("bytes", self.code),
            files=cast("Mapping[str, bytes]", self.files),
            args=self.args,
            stdin=cast("bytes | None", self.stdin),
            timeout=settings.timeout,
            max_output_bytes=settings.max_output_bytes,
            max_file_bytes=settings.max_file_bytes,
            max_files=settings.max_files,
        )


def _content(path: str, value: object) -> bytes:
    """Return the content of a file: text or bytes, or read from a `Path`."""
    if not isinstance(value, Path):
        return check_content(path, value)
    try:
        return value.read_bytes()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SpecError(path, f"cannot read {shorten(str(value))}: {reason}") from None


def _declared_as_utf8(code: bytes) -> bytes:
    """Replace the encoding that UTF-8 text declares, if Python would read another text with it."""
    text = code.decode()
    found = _COOKIE.match(text)
    if found is None:
        return code
    # Python would reject an unknown or wrong encoding, although the text needs none.
    with contextlib.suppress(LookupError, UnicodeError):
        if code.decode(found[1]) == text:
            return code
    return f"{text[: found.start(1)]}utf-8{text[found.end(1) :]}".encode()


def program_digest(
    *,
    code: bytes,
    files: Mapping[str, bytes],
    args: Sequence[str],
    stdin: bytes | None,
    timeout: float,
    max_output_bytes: int,
    max_file_bytes: int,
    max_files: int,
) -> str:
    """Return the SHA-256, in hexadecimal, of everything that the caller chose about one program.

    The runner, the delivery and the hardening are not part of it: it stays the same from release to release. Each
    value is hashed after its length, and each list after its count, so that two programs never share an encoding.
    """

    def values() -> Iterator[bytes]:
        yield b"gke-sandbox/program 1"
        yield code
        yield from [] if stdin is None else [b"stdin", stdin]
        yield b"args %d" % len(args)
        yield from (arg.encode("utf-8", "surrogatepass") for arg in args)
        yield b"files %d" % len(files)
        for name in sorted(files):
            yield name.encode("utf-8", "surrogatepass")
            yield files[name]
        yield f"{float(timeout)!r} {max_output_bytes} {max_file_bytes} {max_files}".encode()

    digest = hashlib.sha256()
    for value in values():
        digest.update(b"%d:" % len(value))
        digest.update(value)
    return digest.hexdigest()


def to_program(
    code: str | bytes | Path | Program,
    files: Mapping[str, str | bytes | Path] | None,
    args: Sequence[str],
    stdin: str | bytes | None,
) -> Program:
    """Return the program of the arguments of a run. Raises `SpecError` if a `Program` is combined with others."""
    if not isinstance(code, Program):
        return Program(code=code, files={} if files is None else files, args=args, stdin=stdin)
    for name, given in (("files", files is not None), ("args", args != ()), ("stdin", stdin is not None)):
        if given:
            raise SpecError(name, "cannot be combined with a Program", hint="Set it in the Program.")
    return code

"""How a program's code, files and input travel into the pod: as keys of one ConfigMap. Pure.

The keys are ``runner`` (the runner's own text), ``request`` (JSON) and numbered pieces: ``code_0``, ``stdin_0``,
``file_0`` and on, through all files. The request says for each content how to put it together again::

    {"protocol": 1, "timeout": seconds, "args": [...],
     "code": [encoding, [keys]], "stdin": null or [encoding, [keys]], "files": {name: [encoding, [keys]]},
     "limits": {"output": bytes a stream, "files": count, "file_bytes": in all, "log_bytes": on the node's disk}}

    text     the pieces are UTF-8 text: concatenate
    base64   concatenate, then decode
    raw      mounted bytes: concatenate
    zlib     mounted bytes: concatenate, then decompress

A content of no bytes has no keys. By environment each key is a variable, ``GKE_SANDBOX_`` and the key in
capitals; mounted, each is a file in ``/app``.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, cast

from ..errors import PayloadTooLarge, SpecError
from ..settings import GVISOR, Settings
from .frames import PROTOCOL
from .program import Program

__all__ = ["Content", "Payload", "env_variable", "resolve_delivery", "runner_text"]

#: Linux gives a program no string above 131,071 bytes, and a variable counts with its name.
PIECE_BYTES = 128_000
#: All variables together, the program's own too: 960 KB were tried and worked.
ENV_BYTES = 900_000
#: Each piece is an entry in the Job's env, and again in each of the pod's watch events.
ENV_PIECES = 128
#: The sum of a ConfigMap's values, as the server counts it: UTF-8 bytes of `data`, decoded bytes of `binaryData`.
#: https://kubernetes.io/docs/concepts/configuration/configmap/#motivation
CONFIG_MAP_BYTES = 1 << 20
#: What a program may be before compression: the pod has to hold it in memory and in its /tmp.
UNPACKED_BYTES = 64 << 20
#: The kubelet rotates a log at 10 MiB, and what was rotated cannot be read again.
LOG_BYTES = 8 << 20


#: A content, and whether it is the code -> its encoding, its pieces: str go into `data`, bytes into `binaryData`.
_Encoder = Callable[[bytes, bool], tuple[str, Sequence[str | bytes]]]


@cache
def runner_text() -> str:
    """The runner's source as it is shipped, some 12 KB: without docstrings and comments, and indented by one."""
    source = Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
    # Plain rules, which need not hold for any other file: a test compares the syntax trees.
    for pattern, replacement in (
        (r'^ *"""(?s:.*?)"""\n', ""),
        (r" *# .*$", ""),
        (r"^\n", ""),
        (r" {4}(?= *\S)", " "),
    ):
        source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
    return "# gke_sandbox/_wire/runner.py, without its comments\n" + source


def env_variable(key: str) -> str:
    """The variable that carries a key: ``code_0`` -> ``GKE_SANDBOX_CODE_0``."""
    return f"GKE_SANDBOX_{key.upper()}"


@dataclass(frozen=True)
class Content:
    """A ConfigMap's values by key, not yet encoded for JSON."""

    data: Mapping[str, str]
    binary_data: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes, as the server counts them."""
        return sum(len(text.encode()) for text in self.data.values()) + sum(map(len, self.binary_data.values()))


class Payload:
    """A program in each of the forms in which it can travel; a form is made when it is first asked for."""

    def __init__(self, program: Program, settings: Settings) -> None:
        self._settings = settings
        self._args = tuple(program.args)
        # `Program` has made bytes of everything.
        self._code = cast("bytes", program.code)
        self._stdin = cast("bytes | None", program.stdin)
        self._files = cast("Mapping[str, bytes]", program.files)

    @cached_property
    def unpacked_size(self) -> int:
        """Bytes of code, stdin, arguments and files as they were given."""
        return sum(self._sizes().values())

    def _sizes(self) -> dict[str, int]:
        """Bytes of each content by its field's path."""
        sizes = {
            "code": len(self._code),
            "stdin": len(self._stdin or b""),
            "args": sum(len(arg.encode()) for arg in self._args),
        }
        sizes.update((f"files[{name!r}]", len(content)) for name, content in self._files.items())
        return sizes

    @property
    def fits_env(self) -> bool:
        """Whether it can go in through environment variables."""
        return self.env_obstacle is None

    @cached_property
    def env_obstacle(self) -> SpecError | None:
        """Why it cannot go in through environment variables."""
        hint, mentions = "Set delivery to auto or mount.", ("delivery",)
        # Base64 makes it larger, never smaller: what is too large as it is need not be encoded to see it.
        size = self.unpacked_size if self.unpacked_size > ENV_BYTES else self.env.size
        size += sum(len(name.encode()) + len(value.encode()) for name, value in self._settings.env.items())
        if size > ENV_BYTES:
            return PayloadTooLarge(
                "delivery",
                f"by environment, it is {size} bytes as encoded, env included; {ENV_BYTES} are the most",
                size=size,
                limit=ENV_BYTES,
                hint=hint,
                mentions=mentions,
            )
        longest = max(len(text.encode()) for text in self.env.data.values())
        if longest > PIECE_BYTES:
            return PayloadTooLarge(
                "delivery",
                f"by environment, arguments and names of files are {longest} bytes; {PIECE_BYTES} are the most",
                size=longest,
                limit=PIECE_BYTES,
                hint=hint,
                mentions=mentions,
            )
        if len(self.env.data) > ENV_PIECES:
            return SpecError(
                "delivery",
                f"by environment, it needs {len(self.env.data)} variables; {ENV_PIECES} are the most",
                hint=hint,
                mentions=mentions,
            )
        return None

    @cached_property
    def env(self) -> Content:
        """Everything in `data`, in pieces: a variable can be taken from no key of `binaryData`."""
        return self._content(_as_variables)

    @cached_property
    def mount(self) -> Content:
        """Plain if that fits, else compressed. Raises `PayloadTooLarge`."""
        size = self.unpacked_size
        if size > UNPACKED_BYTES:
            raise self._too_large(f"are {size} bytes; {UNPACKED_BYTES} are the most", size, UNPACKED_BYTES)
        if size <= CONFIG_MAP_BYTES:
            plain = self._content(_as_files)
            if plain.size <= CONFIG_MAP_BYTES:
                return plain
        compressed = self._content(_as_compressed_files)
        if compressed.size <= CONFIG_MAP_BYTES:
            return compressed
        raise self._too_large(
            f"are {size} bytes, and compressed, with the runner, {compressed.size}; one ConfigMap holds "
            f"{CONFIG_MAP_BYTES}",
            compressed.size,
            CONFIG_MAP_BYTES,
        )

    def _content(self, encoder: _Encoder) -> Content:
        data = {"runner": runner_text(), "request": ""}
        binary: dict[str, bytes] = {}
        numbers = {stem: itertools.count() for stem in ("code", "stdin", "file")}

        def put(stem: str, content: bytes) -> list[object]:
            encoding, pieces = encoder(content, stem == "code")
            keys = []
            for piece in pieces:
                key = f"{stem}_{next(numbers[stem])}"
                keys.append(key)
                if isinstance(piece, str):
                    data[key] = piece
                else:
                    binary[key] = piece
            return [encoding, keys]

        settings = self._settings
        request = {
            "protocol": PROTOCOL,
            "timeout": settings.timeout,
            "args": self._args,
            "code": put("code", self._code),
            "stdin": None if self._stdin is None else put("stdin", self._stdin),
            "files": {name: put("file", content) for name, content in self._files.items()},
            "limits": {
                "output": settings.max_output_bytes,
                "files": settings.max_files,
                "file_bytes": settings.max_file_bytes,
                "log_bytes": LOG_BYTES,
            },
        }
        data["request"] = json.dumps(request, separators=(",", ":"))
        return Content(data, binary)

    def _too_large(self, message: str, size: int, limit: int) -> PayloadTooLarge:
        """`field` is the largest of the contents: what it would help most to make smaller."""
        sizes = self._sizes()
        return PayloadTooLarge(
            max(sizes, key=sizes.__getitem__),
            f"code, files, stdin and args {message}",
            size=size,
            limit=limit,
            hint="put large data into the image",
        )


def resolve_delivery(settings: Settings, payload: Payload, slow_connection: bool) -> Literal["env", "mount"]:
    """How this payload goes in: ``auto`` takes the environment where that is sure to work and to be faster.

    A pod without a volume starts 0.3 s sooner; but only gVisor is known to give a read-only container without
    volumes a place to write to, and a ConfigMap that comes late can cost 13 s by environment. Raises
    `PayloadTooLarge` or `SpecError` if it does not fit.
    """
    if settings.delivery == "env":
        if payload.env_obstacle is not None:
            raise payload.env_obstacle
        return "env"
    if (
        settings.delivery == "auto"
        and settings.runtime_class_name == GVISOR
        and not slow_connection
        and payload.fits_env
    ):
        return "env"
    return "mount"


def _as_variables(content: bytes, is_code: bool) -> tuple[str, list[str]]:
    text = _clean_text(content) if is_code else None
    if text is None:
        return "base64", list(_pieces(base64.b64encode(content)))
    return "text", list(_pieces(content))


def _as_files(content: bytes, is_code: bool) -> tuple[str, list[str] | list[bytes]]:
    text = _clean_text(content) if is_code else None
    if text is None:
        return "raw", [content] if content else []
    return "text", [text] if text else []


def _as_compressed_files(content: bytes, _is_code: bool) -> tuple[str, list[bytes]]:
    return ("zlib", [zlib.compress(content)]) if content else ("raw", [])


def _clean_text(content: bytes) -> str | None:
    """The text, if a string in JSON and in the environment can carry it unchanged."""
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _pieces(text: bytes) -> Iterator[str]:
    """UTF-8 in pieces of at most `PIECE_BYTES`, cut between characters."""
    begin = 0
    while begin < len(text):
        end = min(begin + PIECE_BYTES, len(text))
        # 0b10xxxxxx continues a character. https://www.rfc-editor.org/rfc/rfc3629#section-3
        while end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        yield text[begin:end].decode()
        begin = end

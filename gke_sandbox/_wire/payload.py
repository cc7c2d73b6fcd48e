"""Encode a program's code, files and input as the keys of one ConfigMap, or as one request for stdin. Pure.

The keys are ``runner`` (the runner's source), ``request`` (JSON) and numbered pieces: ``code_0``, ``stdin_0``,
``file_0``, ... The request describes how each content is encoded::

    {"protocol": 1, "timeout": seconds, "args": [...],
     "code": [encoding, [keys]], "stdin": null or [encoding, [keys]], "files": {name: [encoding, [keys]]},
     "cpus": the CPU limit, rounded up, "keep_home": whether the caller has set HOME,
     "limits": {"output": bytes per stream, "files": count, "file_bytes": total, "log_bytes": on the node's disk}}

    text     concatenate the pieces of UTF-8 text
    base64   concatenate, then decode
    raw      concatenate the mounted bytes
    zlib     concatenate the mounted bytes, then decompress

An empty content has no keys. With environment variables, the name of each is ``GKE_SANDBOX_`` and the key in upper
case; with a volume, each key is a file in ``/app``.

For stdin (delivery ``attach``) the request follows a line with two numbers, its length and that of all contents.
The contents follow the request in its order, each described as ``["raw", [length]]``; ``"env"`` has the
environment variables that differ from those of the pod.
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

from .._output_limits import log_limit
from ..errors import PayloadTooLarge, SpecError
from ..kube.quantity import parse_quantity
from ..settings import GVISOR, Settings
from .frames import PROTOCOL
from .program import Program

MAX_PIECE_BYTES = 128_000
"""The maximum length of one variable's value. Linux limits a variable with its name to 131,071 bytes."""

MAX_ENV_BYTES = 900_000
"""The maximum size of all variables, including those of `Settings.env`. 960 KB were tested and worked."""

MAX_ENV_PIECES = 128
"""The maximum number of variables: each is an entry of the Job's env and of each watch event of the pod."""

MAX_CONFIG_MAP_BYTES = 1 << 20
"""The API server's limit for the values of a ConfigMap: UTF-8 bytes of `data`, decoded bytes of `binaryData`.

https://kubernetes.io/docs/concepts/configuration/configmap/#motivation
"""

MAX_UNPACKED_BYTES = 64 << 20
"""The maximum size of a program before compression: the pod holds it in memory and in /tmp."""

_Encoder = Callable[[bytes, bool], tuple[str, Sequence[str | bytes]]]
"""Encode a content (True: it is the code) as an encoding and pieces: str for `data`, bytes for `binaryData`."""


@cache
def runner_text() -> str:
    """Return the runner's source without docstrings and comments and with short indents, about 21 KB."""
    source = Path(__file__).with_name("runner.py").read_text(encoding="utf-8")
    # These rules only have to work for this file: a test compares the syntax trees.
    for pattern, replacement in (
        (r'^ *"""(?s:.*?)"""\n', ""),
        (r" *# .*$", ""),
        (r"^\n", ""),
        (r" {4}(?= *\S)", " "),
    ):
        source = re.sub(pattern, replacement, source, flags=re.MULTILINE)
    return "# gke_sandbox/_wire/runner.py, without its comments\n" + source


def probe_text() -> str:
    """Return the program of ``gke-sandbox doctor --run``."""
    return Path(__file__).with_name("probe.py").read_text(encoding="utf-8")


def env_variable(key: str) -> str:
    """Return the variable for a key: ``code_0`` -> ``GKE_SANDBOX_CODE_0``."""
    return f"GKE_SANDBOX_{key.upper()}"


@dataclass(frozen=True)
class Content:
    """The values of a ConfigMap by key, before they are encoded for JSON."""

    data: Mapping[str, str]
    binary_data: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The size in bytes, as the API server counts it."""
        return sum(len(text.encode()) for text in self.data.values()) + sum(map(len, self.binary_data.values()))


class Payload:
    """A program in each of its encoded forms. A form is built on first use."""

    def __init__(self, program: Program, settings: Settings) -> None:
        self._settings = settings
        self._args = tuple(program.args)
        # `Program` has converted every content to bytes.
        self._code = cast("bytes", program.code)
        self._stdin = cast("bytes | None", program.stdin)
        self._files = cast("Mapping[str, bytes]", program.files)

    @cached_property
    def unpacked_size(self) -> int:
        """The total size of code, stdin, arguments and files, in bytes."""
        return sum(self._sizes().values())

    def _sizes(self) -> dict[str, int]:
        """Return the size of each content in bytes, by the path of its field."""
        sizes = {
            "code": len(self._code),
            "stdin": len(self._stdin or b""),
            "args": sum(len(arg.encode()) for arg in self._args),
        }
        sizes.update((f"files[{name!r}]", len(content)) for name, content in self._files.items())
        return sizes

    @cached_property
    def env_obstacle(self) -> SpecError | None:
        """The reason why the program does not fit into environment variables, or None if it does."""
        problem, hint = "'env' is not possible", "Set delivery to auto or mount."

        def too_large(message: str, size: int, limit: int) -> PayloadTooLarge:
            text = f"{problem}: {message}; the maximum is {limit}"
            return PayloadTooLarge("delivery", text, size=size, limit=limit, hint=hint, mentions=("delivery",))

        # Base64 never makes it smaller, so do not encode a program that is already too large.
        size = self.unpacked_size if self.unpacked_size > MAX_ENV_BYTES else self.env.size
        size += sum(len(name.encode()) + len(value.encode()) for name, value in self._settings.env.items())
        if size > MAX_ENV_BYTES:
            return too_large(f"{size} bytes encoded, including env", size, MAX_ENV_BYTES)
        longest = max(len(text.encode()) for text in self.env.data.values())
        if longest > MAX_PIECE_BYTES:
            return too_large(f"arguments and file names have {longest} bytes", longest, MAX_PIECE_BYTES)
        if (pieces := len(self.env.data)) > MAX_ENV_PIECES:
            text = f"{problem}: it needs {pieces} variables; the maximum is {MAX_ENV_PIECES}"
            return SpecError("delivery", text, hint=hint, mentions=("delivery",))
        return None

    @cached_property
    def env(self) -> Content:
        """The form for environment variables, which can refer to keys of `data` but not of `binaryData`."""
        return self._content(_as_variables)

    def attach_request(self, pod_env: Mapping[str, str] | None = None) -> bytes:
        """Return the form for stdin. Raises `PayloadTooLarge`.

        `pod_env`: the variables that the pod was created with, by default those of the settings.
        """
        self._check_unpacked_size()
        contents: list[bytes] = []

        def put(_stem: str, content: bytes) -> list[object]:
            contents.append(content)
            return ["raw", [len(content)]]

        request = self._request(put)
        if pod_env is not None:
            env = self._settings.env.items()
            request["env"] = {name: value for name, value in env if pod_env.get(name) != value}
        encoded = _as_json(request).encode()
        return b"".join([b"%d %d\n" % (len(encoded), sum(map(len, contents))), encoded, *contents])

    @cached_property
    def mount(self) -> Content:
        """The form for a volume: plain if that fits, else compressed. Raises `PayloadTooLarge`."""
        self._check_unpacked_size()
        size = self.unpacked_size
        if size <= MAX_CONFIG_MAP_BYTES:
            plain = self._content(_as_files)
            if plain.size <= MAX_CONFIG_MAP_BYTES:
                return plain
        compressed = self._content(_as_compressed_files)
        if compressed.size <= MAX_CONFIG_MAP_BYTES:
            return compressed
        raise self._too_large(
            f"have {size} bytes, and {compressed.size} compressed with the runner; the maximum of a ConfigMap is "
            f"{MAX_CONFIG_MAP_BYTES}",
            compressed.size,
            MAX_CONFIG_MAP_BYTES,
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

        data["request"] = _as_json(self._request(put))
        return Content(data, binary)

    def _request(self, put: Callable[[str, bytes], list[object]]) -> dict[str, object]:
        """Return the request; `put` stores a content, and returns its description."""
        settings = self._settings
        return {
            "protocol": PROTOCOL,
            "timeout": settings.timeout,
            "args": self._args,
            "code": put("code", self._code),
            "stdin": None if self._stdin is None else put("stdin", self._stdin),
            "files": {name: put("file", content) for name, content in self._files.items()},
            "cpus": parse_quantity(settings.cpu_limit).value,
            "keep_home": "HOME" in settings.env,
            "limits": {
                "output": settings.max_output_bytes,
                "files": settings.max_files,
                "file_bytes": settings.max_file_bytes,
                "log_bytes": log_limit(
                    max_output_bytes=settings.max_output_bytes,
                    max_file_bytes=settings.max_file_bytes,
                    max_files=settings.max_files,
                ),
            },
        }

    def _check_unpacked_size(self) -> None:
        size = self.unpacked_size
        if size > MAX_UNPACKED_BYTES:
            raise self._too_large(
                f"have {size} bytes; the maximum is {MAX_UNPACKED_BYTES}", size, MAX_UNPACKED_BYTES
            )

    def _too_large(self, message: str, size: int, limit: int) -> PayloadTooLarge:
        """Return the error. Its `field` is the largest content, which helps most when reduced."""
        sizes = self._sizes()
        hint = "Put large data into the image."
        if size <= MAX_UNPACKED_BYTES:
            hint = f"Put large data into the image, or use delivery=attach (up to {MAX_UNPACKED_BYTES >> 20} MiB)."
        return PayloadTooLarge(
            max(sizes, key=sizes.__getitem__),
            f"code, files, stdin and args {message}",
            size=size,
            limit=limit,
            hint=hint,
            mentions=("delivery",),
        )


def _as_json(request: Mapping[str, object]) -> str:
    return json.dumps(request, separators=(",", ":"))


def resolve_delivery(settings: Settings, payload: Payload, slow_connection: bool) -> Literal["env", "mount"]:
    """Choose between environment variables and a volume, if `Settings.delivery` is not ``attach``.

    ``auto`` chooses environment variables if they are known to work and to be faster. A pod without a volume
    starts 0.3 s sooner, but only gVisor provides a writable /tmp in a read-only container without volumes, and a
    late ConfigMap can cost 13 s with environment variables. Raises `PayloadTooLarge` or `SpecError` if the program
    does not fit into a delivery that the settings require.
    """
    if settings.delivery == "env":
        if payload.env_obstacle is not None:
            raise payload.env_obstacle
        return "env"
    if (
        settings.delivery == "auto"
        and settings.runtime_class_name == GVISOR
        and not slow_connection
        and payload.env_obstacle is None
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
    """Return the text, or None if JSON or an environment variable cannot represent it unchanged."""
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _pieces(text: bytes) -> Iterator[str]:
    """Split UTF-8 text into pieces of at most `MAX_PIECE_BYTES`, between characters."""
    start = 0
    while start < len(text):
        end = min(start + MAX_PIECE_BYTES, len(text))
        # A byte 0b10xxxxxx continues a character. https://www.rfc-editor.org/rfc/rfc3629#section-3
        while end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        yield text[start:end].decode()
        start = end

"""What must never stand in a cassette. Pure.

Headers are not searched for: only those that `ALLOWED_HEADERS` names are recorded at all.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..protocol import Decoder, Limits, Output, OutputFile

__all__ = ["ALLOWED_HEADERS", "Secret", "find_secret", "find_secret_in_log"]

ALLOWED_HEADERS = frozenset({"content-encoding", "content-type", "retry-after", "warning"})
"""Headers of answers that mean something to the client. No header of a request is recorded."""

_PATTERNS = (
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")),
    ("a certificate", re.compile(r"-----BEGIN [A-Z ]*CERTIFICATE")),
    ("a certificate or key in base64", re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]{20}")),
    ("a signed token (JWT)", re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*")),
    ("a Google access token", re.compile(r"\bya29\.[\w-]{10,}")),
    ("a Google API key", re.compile(r"\bAIza[\w-]{35}")),
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("an EKS token", re.compile(r"\bk8s-aws-v1\.[\w-]{10,}")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})")),
    ("an API key", re.compile(r"\bsk-[\w-]{20,}")),
    ("a Slack token", re.compile(r"\bxox[abprs]-[\w-]{10,}")),
    ("a bearer token", re.compile(r"\b[Bb]earer +[\w.~+/-]{16,}")),
    ("a password in an address", re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@'\"]+:[^/\s:@'\"]+@")),
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SHORTEST = 20


@dataclass(frozen=True)
class Secret:
    """Something that looks like a secret. `what` says what kind, never which."""

    path: str
    what: str


def find_secret(value: Any) -> Secret | None:
    """The first text in `value`, keys included, that looks like a secret."""
    for path, text in _texts(value, ""):
        what = _kind(_decoded(text)) or _kind(text)
        if what:
            return Secret(path or "the value", what)
    return None


def find_secret_in_log(data: bytes) -> Secret | None:
    """The same for a container's log: in what was printed, however it was cut into frames, and in files."""
    decoder = Decoder(Limits())
    parts = {"stdout": b"", "stderr": b""}
    for frame in decoder.feed(data):
        if isinstance(frame, Output):
            parts[frame.stream] += frame.data
        elif isinstance(frame, OutputFile):
            parts[frame.name] = frame.data
    parts["outside of frames"] = decoder.outside
    for where, part in parts.items():
        what = _kind(part.decode("utf-8", "replace"))
        if what:
            return Secret(where, what)
    return None


def _kind(text: str) -> str:
    return next((what for what, pattern in _PATTERNS if pattern.search(text)), "")


def _decoded(text: str) -> str:
    """What a text says in base64, empty if it is none: files travel so."""
    if len(text) < _SHORTEST or not _BASE64.fullmatch(text):
        return ""
    # A piece of a longer one may end anywhere.
    whole = text.rstrip("=")
    whole = whole[: len(whole) - (len(whole) % 4 == 1)]
    return base64.b64decode(whole + "=" * (-len(whole) % 4)).decode("utf-8", "replace")


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield path, str(key)
            yield from _texts(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")

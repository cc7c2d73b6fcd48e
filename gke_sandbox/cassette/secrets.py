"""What must never stand in a cassette. Pure.

Headers are not searched for: only those that `ALLOWED_HEADERS` names are recorded at all.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .._wire.frames import Decoder, Limits, Output, OutputFile
from .variables import speaks_of_a_secret

__all__ = ["ALLOWED_HEADERS", "Secret", "find_secret", "find_secret_in_log"]

ALLOWED_HEADERS = frozenset({"content-encoding", "content-type", "retry-after", "warning"})
"""Headers of answers that mean something to the client. No header of a request is recorded."""

# What it is, how it begins, and all of it: plain texts are found some twenty times as fast as patterns.
_PATTERNS = (
    ("a private key", ("-----BEGIN ",), re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")),
    ("a certificate", ("-----BEGIN ",), re.compile(r"-----BEGIN [A-Z ]*CERTIFICATE")),
    ("a certificate or key in base64", ("LS0tLS1CRUdJTi",), re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]{20}")),
    ("a signed token (JWT)", ("eyJ",), re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*")),
    ("a Google access token", ("ya29.",), re.compile(r"\bya29\.[\w-]{10,}")),
    ("a Google API key", ("AIza",), re.compile(r"\bAIza[\w-]{35}")),
    ("an AWS access key", ("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("an EKS token", ("k8s-aws-v1.",), re.compile(r"\bk8s-aws-v1\.[\w-]{10,}")),
    ("a GitHub token", ("gh",), re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})")),
    ("an API key", ("sk-",), re.compile(r"\bsk-[\w-]{20,}")),
    ("a Slack token", ("xox",), re.compile(r"\bxox[abprs]-[\w-]{10,}")),
    ("a bearer token", ("Bearer ", "bearer "), re.compile(r"\b[Bb]earer +[\w.~+/-]{16,}")),
    (
        "a password in an address",
        ("://",),
        # None is what a template leaves open ({p}, <password>, $PASSWORD, %s); %40 is a character.
        re.compile(r"(?<=[a-z0-9+.-])://[^/\s:@'\"]*:(?!\$)(?:[^/\s:@'\"{}<>%]|%[0-9A-Fa-f]{2})+@"),
    ),
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SHORTEST = 20
# http://:p@ has ten, and every token more.
_SHORTEST_SECRET = 7
# The most that a run may ask for, and so that an honest log brings; what is decompressed needs a bound.
_LIMITS = Limits(output_bytes=1 << 30, file_bytes=64 << 20, file_count=10_000)


@dataclass(frozen=True)
class Secret:
    """Something that looks like a secret. `what` says what kind, never which; `hint` what to do."""

    path: str
    what: str
    hint: str = "a recording is meant to be shared: record the run without its secrets"


def find_secret(value: Any) -> Secret | None:
    """The first thing in `value` that looks like a secret: a text, keys included, or an environment variable."""
    searched: set[str] = set()
    for path, text in _texts(value, ""):
        if len(text) < _SHORTEST_SECRET or text in searched:
            continue
        searched.add(text)
        what = _kind(_decoded(text)) or _kind(text)
        if what:
            return Secret(path or "the value", what)
    for path, name, setting in _variables(value, ""):
        if speaks_of_a_secret(name, setting):
            return Secret(
                path or "the value",
                f"the value of the variable {name}",
                hint=f"record it, and replay it, with a value that is no secret: {name}=dummy",
            )
    return None


def find_secret_in_log(data: bytes) -> Secret | None:
    """The same for a container's log: in what was printed, however it was cut into frames, and in files."""
    frames = Decoder(_LIMITS).feed(data)
    outputs = [frame for frame in frames if isinstance(frame, Output)]
    parts = [
        *((name, b"".join(each.data for each in outputs if each.stream == name)) for name in ("stdout", "stderr")),
        *((frame.name, frame.data) for frame in frames if isinstance(frame, OutputFile)),
        # Whatever is in no frame, or in one that nobody takes.
        ("the log", data),
    ]
    for where, part in parts:
        what = _kind(part.decode("utf-8", "replace"))
        if what:
            return Secret(where, what)
    return None


def _kind(text: str) -> str:
    for what, beginnings, pattern in _PATTERNS:
        for beginning in beginnings:
            at = text.find(beginning)
            while at >= 0:
                if pattern.match(text, at):
                    return what
                at = text.find(beginning, at + 1)
    return ""


def _decoded(text: str) -> str:
    """What a text says in base64, empty if it is none: files travel so, and `meaning` shows bytes so."""
    text = text.removeprefix("base64:")
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


def _variables(value: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Where something has a name and a value, as Kubernetes writes a container's environment."""
    if isinstance(value, Mapping):
        name, setting = value.get("name"), value.get("value")
        if isinstance(name, str) and isinstance(setting, str):
            yield path, name, setting
        for key, item in value.items():
            yield from _variables(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _variables(item, f"{path}[{index}]")

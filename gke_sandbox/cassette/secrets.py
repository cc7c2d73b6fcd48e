"""Find secrets, which must not be in a cassette. Pure.

Headers are not searched: only those in `ALLOWED_HEADERS` are recorded.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

from .._wire.frames import Decoder, Limits, Output, OutputFile

__all__ = ["ALLOWED_HEADERS", "Secret", "find_secret", "find_secret_in_log", "looks_like_secret"]

ALLOWED_HEADERS = frozenset(
    {"content-encoding", "content-type", "retry-after", "sec-websocket-protocol", "warning"}
)
"""Headers of responses that the client uses. No header of a request is recorded."""

# A kind of secret, plain texts that it starts with, and its pattern: plain texts are found twenty times as fast.
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
        # Not the variable of a template ({p}, <password>, $PASSWORD, %s); %40 is a character.
        re.compile(r"(?<=[a-z0-9+.-])://[^/\s:@'\"]*:(?!\$)(?:[^/\s:@'\"{}<>%]|%[0-9A-Fa-f]{2})+@"),
    ),
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_MIN_BASE64 = 20
# http://:p@ has ten characters, and every token has more.
_MIN_SECRET = 7
# The maximum of what a run may request, and so of what its log contains.
_LIMITS = Limits(output_bytes=1 << 30, file_bytes=64 << 20, file_count=10_000)


@dataclass(frozen=True)
class Secret:
    """Something that looks like a secret. `what` is its kind, without the value."""

    path: str
    what: str
    hint: str = "Recordings are meant to be shared: record the run without its secrets."


def find_secret(value: Any, searched: set[str] | None = None) -> Secret | None:
    """Return the first text, key or environment variable in `value` that looks like a secret.

    Texts in `searched` are skipped, and the others are added to it.
    """
    searched = set() if searched is None else searched
    parts = _parts(value, "", [])
    for path, text in parts:
        if not isinstance(text, str) or len(text) < _MIN_SECRET or text in searched:
            continue
        searched.add(text)
        what = _kind(_decoded(text)) or _kind(text)
        if what:
            return Secret(path or "the value", what)
    for path, part in parts:
        # As in the environment of a container.
        name, setting = (part.get("name"), part.get("value")) if isinstance(part, dict) else (None, None)
        if isinstance(name, str) and isinstance(setting, str) and looks_like_secret(name, setting):
            return Secret(
                path or "the value",
                f"the value of the variable {name}",
                hint=f"Record it, and replay it, with a value that is not a secret: {name}=dummy.",
            )
    return None


def find_secret_in_log(data: bytes) -> Secret | None:
    """Return the first secret in the log of a container: in its output, which frames may split, and in files."""
    frames = Decoder(_LIMITS).feed(data)
    outputs = [frame for frame in frames if isinstance(frame, Output)]
    parts = [
        *((name, b"".join(each.data for each in outputs if each.stream == name)) for name in ("stdout", "stderr")),
        *((frame.name, frame.data) for frame in frames if isinstance(frame, OutputFile)),
        # What is outside of frames, or in frames that are ignored.
        ("the log", data),
    ]
    for where, part in parts:
        what = _kind(part.decode("utf-8", "replace"))
        if what:
            return Secret(where, what)
    return None


def _kind(text: str) -> str:
    for what, prefixes, pattern in _PATTERNS:
        for prefix in prefixes:
            at = text.find(prefix)
            while at >= 0:
                if pattern.match(text, at):
                    return what
                at = text.find(prefix, at + 1)
    return ""


def _decoded(text: str) -> str:
    """Return base64 decoded, empty for other text: files are sent as base64, and `canonical_form` returns it."""
    text = text.removeprefix("base64:")
    if len(text) < _MIN_BASE64 or not _BASE64.fullmatch(text):
        return ""
    # A piece of a longer text may end anywhere.
    whole = text.rstrip("=")
    whole = whole[: len(whole) - (len(whole) % 4 == 1)]
    return base64.b64decode(whole + "=" * (-len(whole) % 4)).decode("utf-8", "replace")


def _parts(value: Any, path: str, found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Add a value, its keys, and all values in it to `found`, with the path of each."""
    found.append((path, value))
    if isinstance(value, dict):
        for key, item in value.items():
            found.append((path, key))
            _parts(item, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _parts(item, f"{path}[{index}]", found)
    return found


# -- environment variables -------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|TOKEN(?!I[SZ])"
    r"|(?:ACCESS|ACCOUNT|API|AUTH|ENCRYPTION|MASTER|PRIVATE|SIGNING|SSH)_?KEY"
    r"|_KEY$|(?:^|_)(?:JWT|PASS)$|_(?:PAT|PWD)$"
)
# Names of the location of a secret, and keys that are not secret.
_NOT_SECRET_NAME = re.compile(
    r"_(?:DIR|ENDPOINT|FILE|HEADER|NAME|PATH|REGION|TYPE|URI|URL)$"
    r"|^GOOGLE_APPLICATION_CREDENTIALS$"
    r"|(?:CACHE|FOREIGN|GROUP|HOT|INDEX|PARTITION|PRIMARY|PUBLIC|ROUTING|ROW|SHARD|SORT)_KEY$"
)
# Names of a count, of tokens for instance, whose value is a number.
_COUNT_NAME = re.compile(r"(?:^|_)(?:BUDGET|COUNT|LENGTH|LIMIT|MAX|MIN|NUM|SIZE|TIMEOUT|TTL)(?:_|$)|TOKENS(?:_|$)")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?[A-Za-z]{0,2}")
_SWITCH = r"true|false|yes|no|on|off|none|null|[01]"
_FILLED = r"[x*.#_0-]+|<[\w .:-]*>|\{\{[\w .-]*\}\}|\$+\{\w*\}|\$+\(\w*\)"
_WORD = (
    r"dummy|fake|mock|sample|example|placeholder|changeme|redacted|masked|hidden|removed|omitted|unused|invalid"
    r"|todo|testing|test|secret|password|passwd|token|credentials|credential|api|access|private|key|value"
    r"|my|your|a|an|the|this|is|not|no|real|here|change|me|for"
)
# "dummy", "your-api-key-here", "notasecret": words in the place of a secret.
_PLACEHOLDER = re.compile(rf"(?i)(?:{_SWITCH}|{_FILLED}|(?:(?:{_WORD})[-_. ]?[0-9]?)+)?")


def looks_like_secret(name: str, value: str) -> bool:
    """Return whether a variable holds a secret, judging by its name.

    An empty value, a switch and a placeholder are not secrets.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).upper()
    value = value.strip()
    is_count = _COUNT_NAME.search(words) and _NUMBER.fullmatch(value)
    harmless = is_count or _NOT_SECRET_NAME.search(words) or _PLACEHOLDER.fullmatch(value)
    return bool(_SECRET_NAME.search(words) and not harmless)

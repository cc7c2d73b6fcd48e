"""Which environment variables hold secrets, judged by their names: no value need look like anything. Pure."""

from __future__ import annotations

import re

__all__ = ["speaks_of_a_secret"]

_SECRET = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|TOKEN(?!I[SZ])"
    r"|(?:ACCESS|ACCOUNT|API|AUTH|ENCRYPTION|MASTER|PRIVATE|SIGNING|SSH)_?KEY"
    r"|_KEY$|(?:^|_)(?:JWT|PASS)$|_(?:PAT|PWD)$"
)
# Names that speak of the place where a secret is, and keys that open nothing.
_ABOUT = re.compile(
    r"_(?:DIR|ENDPOINT|FILE|HEADER|NAME|PATH|REGION|TYPE|URI|URL)$"
    r"|^GOOGLE_APPLICATION_CREDENTIALS$"
    r"|(?:CACHE|FOREIGN|GROUP|HOT|INDEX|PARTITION|PRIMARY|PUBLIC|ROUTING|ROW|SHARD|SORT)_KEY$"
)
# Names that speak of a count, of tokens for instance: then the value is a number.
_COUNT = re.compile(r"(?:^|_)(?:BUDGET|COUNT|LENGTH|LIMIT|MAX|MIN|NUM|SIZE|TIMEOUT|TTL)(?:_|$)|TOKENS(?:_|$)")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?[A-Za-z]{0,2}")
_SWITCH = r"true|false|yes|no|on|off|none|null|[01]"
_FILLED = r"[x*.#_0-]+|<[\w .:-]*>|\{\{[\w .-]*\}\}|\$+\{\w*\}|\$+\(\w*\)"
_WORD = (
    r"dummy|fake|mock|sample|example|placeholder|changeme|redacted|masked|hidden|removed|omitted|unused|invalid"
    r"|todo|testing|test|secret|password|passwd|token|credentials|credential|api|access|private|key|value"
    r"|my|your|a|an|the|this|is|not|no|real|here|change|me|for"
)
# "dummy", "your-api-key-here", "notasecret": words that stand where a secret would.
_PLACEHOLDER = re.compile(rf"(?i)(?:{_SWITCH}|{_FILLED}|(?:(?:{_WORD})[-_. ]?[0-9]?)+)?")


def speaks_of_a_secret(name: str, value: str) -> bool:
    """Whether a variable of this name holds a secret; an empty value, a switch and a placeholder are none."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).upper()
    value = value.strip()
    counts = _COUNT.search(words) and _NUMBER.fullmatch(value)
    about = counts or _ABOUT.search(words) or _PLACEHOLDER.fullmatch(value)
    return bool(_SECRET.search(words) and not about)

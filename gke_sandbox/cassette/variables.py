"""Which environment variables hold secrets, judged by their names: no value need look like anything. Pure."""

from __future__ import annotations

import re

__all__ = ["speaks_of_a_secret"]

_SECRET = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|TOKEN(?!I[SZ])"
    r"|(?:ACCESS|ACCOUNT|API|AUTH|ENCRYPTION|MASTER|PRIVATE|SIGNING|SSH)_?KEY"
    r"|_(?:PASS|PAT|PWD)$"
)
# Names that speak of a count of tokens, or of the place where a secret is.
_ABOUT = re.compile(
    r"(?:^|_)(?:BUDGET|COUNT|LENGTH|LIMIT|MAX|MIN|NUM|SIZE|TIMEOUT|TTL)(?:_|$)"
    r"|_(?:DIR|ENDPOINT|FILE|HEADER|NAME|PATH|TYPE|URI|URL)$"
    r"|^GOOGLE_APPLICATION_CREDENTIALS$"
)
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
    return bool(_SECRET.search(words) and not _ABOUT.search(words) and not _PLACEHOLDER.fullmatch(value.strip()))

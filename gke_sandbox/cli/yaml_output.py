"""Write YAML for kubectl. Pure."""

from __future__ import annotations

import re
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][\w./:-]+", re.ASCII)
"""Text that needs no quotes, unless YAML 1.1 has another meaning for it. PyYAML does not know all of kubectl's."""


def dump(value: Any) -> str:
    """Return YAML that kubectl reads as `value`: quoted text, and lines of text as a block where possible."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - overrides a method
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None if _PLAIN.fullmatch(text) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    dumped: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return dumped


def scalar(text: str) -> str:
    """Return text as one YAML scalar, quoted if necessary."""
    return dump([text]).removeprefix("- ").rstrip("\n")

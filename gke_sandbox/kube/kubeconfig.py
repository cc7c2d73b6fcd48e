"""Kubeconfig files as values: parsing one, merging several. Pure: `config` does the reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from .safeyaml import parse_yaml

__all__ = ["Entry", "Kubeconfig", "merge", "parse"]

# https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/


@dataclass(frozen=True)
class Entry:
    """One named cluster, user or context, as it stands in its file. Errors name all three."""

    kind: str
    name: str
    file: Path
    fields: Mapping[str, object] = field(repr=False)

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}" in {self.file}'

    def text(self, key: str) -> str:
        """The field's text; empty when it is missing or null. Raises `ConfigError` for any other type."""
        value = self.fields.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ConfigError(f"{self}: {key} is not text", hint=f"Put the value of {key} in quotes.")
        return value

    def flag(self, key: str) -> bool:
        """The field's truth; False when it is missing or null. Raises `ConfigError` for any other type."""
        value = self.fields.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise ConfigError(f"{self}: {key} is neither true nor false")
        return value

    def path(self, key: str) -> Path | None:
        """The path in a field; a relative one begins at the directory of the file that it stands in."""
        text = self.text(key)
        return self.file.parent / text if text else None


@dataclass(frozen=True)
class Kubeconfig:
    """What one file says, or several that were merged."""

    clusters: Mapping[str, Entry] = field(default_factory=dict)
    users: Mapping[str, Entry] = field(default_factory=dict)
    contexts: Mapping[str, Entry] = field(default_factory=dict)
    current_context: str = ""


def parse(content: bytes, file: Path) -> Kubeconfig:
    """The kubeconfig in `content`; an empty file is an empty one. Unknown fields are left alone.

    Raises `ConfigError` naming `file`: not YAML, another kind of file, wrong types, two entries of one name.
    """
    value = parse_yaml(content, str(file))
    if value is None:
        return Kubeconfig()
    if not isinstance(value, dict):
        raise ConfigError(f"{file} is not a kubeconfig: a mapping is expected")
    for key, expected in (("apiVersion", "v1"), ("kind", "Config")):
        if value.get(key) not in (None, "", expected):
            raise ConfigError(f"{file} is not a kubeconfig: its {key} is not {expected}")
    current = value.get("current-context")
    if current is not None and not isinstance(current, str):
        raise ConfigError(f"{file}: current-context is not text")
    return Kubeconfig(
        clusters=_entries(value, "cluster", file),
        users=_entries(value, "user", file),
        contexts=_entries(value, "context", file),
        current_context=current or "",
    )


def _entries(value: Mapping[str, object], kind: str, file: Path) -> dict[str, Entry]:
    key = f"{kind}s"
    items = value.get(key)
    if items is None:
        return {}
    if not isinstance(items, list):
        raise ConfigError(f"{file}: {key} is not a list")
    entries: dict[str, Entry] = {}
    for position, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(name, str) or not name:
            raise ConfigError(f"{file}: {key}[{position}] is not a mapping with a name")
        fields = item.get(kind)
        if fields is not None and not isinstance(fields, dict):
            raise ConfigError(f'{file}: the {kind} of "{name}" is not a mapping')
        if name in entries:
            raise ConfigError(f'{file}: two {key} are named "{name}"')
        entries[name] = Entry(kind, name, file, fields or {})
    return entries


def merge(configs: Iterable[Kubeconfig]) -> Kubeconfig:
    """Several files as one: of two entries of one name the first counts, whole, and the first current-context.

    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
    """
    clusters: dict[str, Entry] = {}
    users: dict[str, Entry] = {}
    contexts: dict[str, Entry] = {}
    current = ""
    for config in configs:
        clusters = {**config.clusters, **clusters}
        users = {**config.users, **users}
        contexts = {**config.contexts, **contexts}
        current = current or config.current_context
    return Kubeconfig(clusters, users, contexts, current)

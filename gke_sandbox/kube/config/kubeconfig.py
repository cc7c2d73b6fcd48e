"""Parse and merge kubeconfigs. Pure: `loader` reads the files."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .yaml import parse_kubeconfig_yaml

__all__ = ["Entry", "Kubeconfig", "merge", "parse", "quoted"]

MAX_QUOTED = 80


def quoted(name: str) -> str:
    """Return a name in quotes for an error: on one line, without control characters, and shortened."""
    shown = name if len(name) <= MAX_QUOTED else f"{name[:MAX_QUOTED]}..."
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown) + '"'


@dataclass(frozen=True)
class Entry:
    """A named cluster, user or context. Its str, for errors, has the kind, the name and the file."""

    kind: str
    name: str
    file: Path
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The known fields that are set and not null, with the types of `KINDS`."""

    def __str__(self) -> str:
        return f"{self.kind} {quoted(self.name)} in {self.file}"

    def text(self, key: str) -> str:
        """Return the text of a field, or "" if it is missing."""
        return str(self.fields.get(key, ""))

    def path(self, key: str) -> Path | None:
        """Return the path in a field, resolved by `resolve_path`; None if the field is missing."""
        text = self.text(key)
        return self.resolve_path(text) if text else None

    def resolve_path(self, path: str) -> Path:
        """Return an absolute `path` as it is, and another one relative to the directory of this entry's file.

        Like client-go, resolve ``..`` in relative paths as text. In absolute ones it may follow a symbolic link.
        """
        return Path(path) if os.path.isabs(path) else Path(os.path.normpath(self.file.parent / path))


@dataclass(frozen=True)
class Kubeconfig:
    """The content of one kubeconfig, or of several that were merged."""

    clusters: Mapping[str, Entry] = field(default_factory=dict)
    users: Mapping[str, Entry] = field(default_factory=dict)
    contexts: Mapping[str, Entry] = field(default_factory=dict)
    current_context: str = ""


# A type takes a value that is not null and its place, for errors. It returns the converted value.
Type = Callable[[Any, str], Any]


def _text(value: Any, where: str) -> str:
    # Like client-go, do not accept a number or a boolean as text: `token: 0123` would be `83`.
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be text", hint="Put the value in quotes.")
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where} must be true or false")
    return value


def _data(value: Any, where: str) -> bytes:
    # Like client-go, allow line breaks but no spaces.
    text = _text(value, where).replace("\n", "").replace("\r", "")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ConfigError(f"{where} is not valid base64") from None


def _anything(value: Any, _where: str) -> Any:
    return value


def _list_of(item: Type, missing: Any) -> Type:
    def check(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list")
        return [missing if one is None else item(one, f"{where}[{at}]") for at, one in enumerate(value)]

    return check


def _map_of(item: Type, missing: Any) -> Type:
    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a mapping")
        return {
            key: missing if one is None else item(one, f"{where}: {quoted(key)}") for key, one in value.items()
        }

    return check


def _fields(types: Mapping[str, Type]) -> Type:
    def check(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a mapping")
        # Ignore unknown fields: newer files must not break older programs.
        return {
            key: type_(value[key], f"{where}: {key}") for key, type_ in types.items() if value.get(key) is not None
        }

    return check


def _extensions(value: Any, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in _list_of(_fields({"name": _text, "extension": _anything}), {})(value, where):
        name = item.get("name", "")
        if name in found:
            raise ConfigError(f"{where}: duplicate name {quoted(name)}")
        found[name] = item.get("extension")
    return found


def _texts(*names: str) -> dict[str, Type]:
    return dict.fromkeys(names, _text)


# client-go checks the types of fields that nothing uses, too.
_PREFERENCES = _fields({"colors": _flag, "extensions": _extensions})
# https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
_EXEC: Mapping[str, Type] = {
    **_texts("command", "apiVersion", "installHint", "interactiveMode"),
    "args": _list_of(_text, ""),
    "env": _list_of(_fields(_texts("name", "value")), {}),
    "provideClusterInfo": _flag,
}
KINDS: Mapping[str, Mapping[str, Type]] = {
    "cluster": {
        **_texts("server", "tls-server-name", "certificate-authority", "proxy-url"),
        "certificate-authority-data": _data,
        "insecure-skip-tls-verify": _flag,
        "disable-compression": _flag,
        "extensions": _extensions,
    },
    "user": {
        **_texts("client-certificate", "client-key", "token", "tokenFile", "username", "password", "as", "as-uid"),
        "client-certificate-data": _data,
        "client-key-data": _data,
        "as-groups": _list_of(_text, ""),
        "as-user-extra": _map_of(_list_of(_text, ""), []),
        "auth-provider": _fields({"name": _text, "config": _map_of(_text, "")}),
        "exec": _fields(_EXEC),
        "extensions": _extensions,
    },
    "context": {**_texts("cluster", "user", "namespace"), "extensions": _extensions},
}


def parse(content: bytes, file: Path) -> Kubeconfig:
    """Return the kubeconfig in `content`. An empty file is an empty kubeconfig; unknown fields are ignored.

    Raise `ConfigError` that names `file` for invalid YAML, another kind of file, a field of the wrong type and a
    duplicate name.
    """
    value = parse_kubeconfig_yaml(content, str(file))
    if value is None:
        return Kubeconfig()
    if not isinstance(value, dict):
        raise ConfigError(f"{file} is not a kubeconfig: it must be a mapping")
    for key, expected in (("apiVersion", "v1"), ("kind", "Config")):
        if value.get(key) not in (None, "", expected):
            raise ConfigError(f"{file} is not a kubeconfig: its {key} must be {expected}")
    current = _fields({"current-context": _text, "extensions": _extensions, "preferences": _PREFERENCES})(
        value, str(file)
    )
    return Kubeconfig(
        clusters=_entries(value, "cluster", file),
        users=_entries(value, "user", file),
        contexts=_entries(value, "context", file),
        current_context=current.get("current-context", ""),
    )


def _entries(value: Mapping[str, Any], kind: str, file: Path) -> dict[str, Entry]:
    key = f"{kind}s"
    items = value.get(key)
    if items is None:
        return {}
    entries: dict[str, Entry] = {}
    # Like client-go, treat a missing entry, name or value as empty.
    for item in _list_of(_fields({"name": _text, kind: _anything}), {})(items, f"{file}: {key}"):
        name = item.get("name", "")
        where = str(Entry(kind, name, file))
        if name in entries:
            raise ConfigError(f"{file}: {key}: duplicate name {quoted(name)}")
        entries[name] = Entry(kind, name, file, _fields(KINDS[kind])(item.get(kind, {}), where))
    return entries


def merge(configs: Iterable[Kubeconfig]) -> Kubeconfig:
    """Merge kubeconfigs. The first entry with a name is used as a whole, and the first current-context.

    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
    """
    merged = Kubeconfig()
    for config in configs:
        merged = Kubeconfig(
            {**config.clusters, **merged.clusters},
            {**config.users, **merged.users},
            {**config.contexts, **merged.contexts},
            merged.current_context or config.current_context,
        )
    return merged

"""YAML from files that others wrote: plain values or one clear error, in bounded time and depth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError

if TYPE_CHECKING:
    import yaml

__all__ = ["parse_yaml"]

# A kubeconfig is six levels deep. libyaml composes recursively in C: at some 10,000 levels it crashes the process.
# From 0.2.6 on it refuses 1,000 levels of itself, which it may read ahead of the events that are counted here.
MAX_DEPTH = 64
# A kubeconfig of a thousand clusters has some 60,000. What an alias stands for counts each time that it is used.
MAX_VALUES = 200_000
# Longer ones are read as floats, since integers of a million digits take quadratic time.
MAX_DIGITS = 64

_TAG = "tag:yaml.org,2002:"
_TRUTH = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def parse_yaml(content: bytes, source: str) -> Any:
    """The first document in `content`, None if there is none: what JSON can say, with text as every key.

    Aliases and merge keys (``<<``) mean what they mean to kubectl. Raises `ConfigError`, which begins with
    `source` and quotes nothing of the content (it may hold secrets), for anything that is not such a document,
    that holds itself, or that is too much: a few aliases can stand for gigabytes.
    """
    import yaml

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not YAML: not UTF-8 text (byte {error.start})") from None
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_shape(yaml.parse(text, Loader=base), source)
        loader = base(text)
        try:
            node = loader.get_node() if loader.check_node() else None
        finally:
            loader.dispose()
        return None if node is None else _Builder(source).value(node, 0)
    except yaml.YAMLError as error:
        if "nesting depth" in str(getattr(error, "problem", "")):
            raise _too_deep(source) from None
        raise ConfigError(f"{source} is not YAML{_line(getattr(error, 'problem_mark', None))}") from None


def _check_shape(events: Any, source: str) -> None:
    import yaml

    depth = 0
    for count, event in enumerate(events):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _too_deep(source)
        if count > MAX_VALUES:
            raise _too_much(source)
        if isinstance(event, yaml.DocumentEndEvent):
            # As client-go: what follows the first document is not looked at.
            return


class _Builder:
    """Values from composed nodes. An aliased node is built each time, and so counted each time."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = MAX_VALUES
        self._open: set[int] = set()

    def value(self, node: yaml.Node, depth: int) -> Any:
        import yaml

        self._left -= 1
        if self._left < 0:
            raise _too_much(self._source)
        if depth > MAX_DEPTH:
            raise _too_deep(self._source)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise ConfigError(f"{self._source} has an alias that stands for what holds it{_line(node.start_mark)}")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
                return [self.value(item, depth + 1) for item in node.value]
            if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
                return self._mapping(node, depth)
        finally:
            self._open.discard(id(node))
        raise self._unreadable(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            if key.tag == f"{_TAG}merge":
                # As client-go's YAML: in the order of the file, so that a merge comes before what stands above it.
                merged = self.value(item, depth + 1)
                for mapping in reversed(merged) if isinstance(merged, list) else [merged]:
                    if not isinstance(mapping, dict):
                        raise self._unreadable(item)
                    found.update(mapping)
                continue
            name = self.value(key, depth + 1)
            if isinstance(name, bool):
                name = "true" if name else "false"
            if not isinstance(name, (str, int, float)):
                raise self._unreadable(key)
            found[str(name)] = self.value(item, depth + 1)
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "str" and not node.style and text in ("y", "Y", "n", "N"):
            # Truth values in YAML 1.1 and to client-go, but not to PyYAML.
            return text in ("y", "Y")
        if kind in ("str", "timestamp", "value", "merge"):
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in _TRUTH:
            return _TRUTH[text.lower()]
        if kind in ("int", "float"):
            # 12:30 is a number in YAML 1.1, but text to client-go.
            return text if ":" in text else self._number(node, kind)
        raise self._unreadable(node)

    def _number(self, node: yaml.ScalarNode, kind: str) -> int | float:
        import yaml

        constructor = yaml.constructor.SafeConstructor()
        try:
            if kind == "int" and len(node.value) <= MAX_DIGITS:
                return int(constructor.construct_yaml_int(node))
            number = float(constructor.construct_yaml_float(node))
        except (ValueError, IndexError):
            # PyYAML's answer to `!!int x`.
            raise self._unreadable(node) from None
        if not math.isfinite(number):
            raise self._unreadable(node)
        return number

    def _unreadable(self, node: yaml.Node) -> ConfigError:
        return ConfigError(f"{self._source} is not YAML that can be read{_line(node.start_mark)}")


def _too_deep(source: str) -> ConfigError:
    return ConfigError(f"{source} is nested deeper than {MAX_DEPTH} levels")


def _too_much(source: str) -> ConfigError:
    return ConfigError(f"{source} holds more than {MAX_VALUES} values")


def _line(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1})"

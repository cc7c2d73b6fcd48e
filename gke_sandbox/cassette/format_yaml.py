"""YAML for cassettes: JSON values, equal parts as aliases, and the line of each mapping."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import CassetteError
from ..kube.config.yaml import YamlMapping, YamlProblem, read_yaml

__all__ = ["LineMapping", "dump", "parse"]

LineMapping = YamlMapping

# Aliases of aliases can expand to more values than fit into memory. Recordings, even of a hundred executions, have
# a fifth of a value for each character of their file.
_MAX_VALUES = 200_000
_MAX_VALUES_PER_CHARACTER = 4
# Shorter parts, in characters of JSON, are clearer in their place than under a name.
_MIN_SHARED = 120
_MAX_FLOW = 80
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?(?:[eE][-+]?\d+)?")
# Python reads no more than 4300 digits, and takes quadratic time for it.
_MAX_NUMBER = 1000
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}


def parse(text: str, source: str) -> Any:
    """Return the document in `text`, whose mappings are `LineMapping`.

    Plain words are text, except null, true, false and JSON's numbers; so times and ``yes`` are text. Raises
    `CassetteError`, with the line. A document must end with ``...``, which shows that it is complete.
    """
    max_values = _MAX_VALUES + _MAX_VALUES_PER_CHARACTER * len(text)
    try:
        return read_yaml(text, _scalar, max_values=max_values, explicit_end=True)
    except YamlProblem as error:
        place = source if error.line is None else f"{source}, line {error.line}"
        detail = f": {error.detail}" if error.detail else ""
        incomplete = error.detail or error.problem.startswith("cut off")
        hint = "If the file was cut off, record it again." if incomplete else ""
        raise CassetteError(f"{place}: {error.problem}{detail}", hint=hint) from None


def _scalar(text: str, tag: str | None, plain: bool) -> Any:
    if tag is not None:
        raise ValueError(f"tags like {tag} are not supported")
    if not plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-0123456789" or len(text) > _MAX_NUMBER or not _NUMBER.fullmatch(text):
        return text
    return int(text) if text.isascii() and text.isdecimal() else json.loads(text)


def dump(value: Any) -> str:
    """Return `value` as one document that ends with ``...``; equal parts are written once, with an alias each."""
    import yaml

    events = list(_Writer(_Sharing().shared(value)[0]).events())
    texts = (event.value for event in events if isinstance(event, yaml.ScalarEvent))
    # libyaml is faster, but escapes such characters.
    astral = any(max(text, default="") > "\uffff" for text in texts)
    dumper: Any = yaml.SafeDumper if astral else getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.emit(events, Dumper=dumper, allow_unicode=True, width=10_000))


class _Sharing:
    """Replaces equal parts by one object. Parts are compared by the numbers of their elements, in linear time."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._objects: dict[int, Any] = {}

    def shared(self, value: Any) -> tuple[Any, int, int]:
        """Return the same value, its number, which equal values have in common, and its length as JSON."""
        key: Any
        if isinstance(value, dict):
            found = {name: self.shared(item) for name, item in value.items()}
            new: Any = {name: part for name, (part, _, _) in found.items()}
            key = frozenset((name, number) for name, (_, number, _) in found.items())
            length = sum(len(_json_text(name)) + size + 4 for name, (_, _, size) in found.items())
        elif isinstance(value, list):
            parts = [self.shared(item) for item in value]
            new = [part for part, _, _ in parts]
            key = tuple(number for _, number, _ in parts)
            length = sum(size + 2 for _, _, size in parts)
        else:
            key = _json_text(value)
            return value, self._numbers.setdefault(key, len(self._numbers)), len(key)
        number = self._numbers.setdefault(key, len(self._numbers))
        if length >= _MIN_SHARED:
            new = self._objects.setdefault(number, new)
        return new, number, max(length, 2)


_json_text = json.JSONEncoder().encode


class _Writer:
    """The events of a document, for the emitter of PyYAML."""

    def __init__(self, value: Any) -> None:
        import yaml

        self._value = value
        self._resolver: Any = yaml.resolver.Resolver()
        # By id: the name of each object, empty if it occurs only once.
        self._anchors: dict[int, str] = {}
        self._written: set[int] = set()
        self._count = 0

    def events(self) -> Iterator[Any]:
        import yaml

        self._find(self._value)
        yield yaml.StreamStartEvent()
        yield yaml.DocumentStartEvent(explicit=False)
        yield from self._events(self._value)
        yield yaml.DocumentEndEvent(explicit=True)
        yield yaml.StreamEndEvent()

    def _find(self, value: Any) -> None:
        """Find the objects that occur more than once."""
        if not isinstance(value, (dict, list)):
            return
        if id(value) not in self._anchors:
            self._anchors[id(value)] = ""
            for item in value.values() if isinstance(value, dict) else value:
                self._find(item)
        elif not self._anchors[id(value)]:
            self._count += 1
            self._anchors[id(value)] = f"same{self._count}"

    def _events(self, value: Any) -> Iterator[Any]:
        import yaml

        if not isinstance(value, (dict, list)):
            yield self._scalar(value)
            return
        anchor = self._anchors[id(value)] or None
        if id(value) in self._written:
            yield yaml.AliasEvent(anchor)
            return
        self._written.add(id(value))
        if isinstance(value, dict):
            yield yaml.MappingStartEvent(anchor, None, True, flow_style=_is_flow(value.values()))
            for key, item in value.items():
                yield self._scalar(key)
                yield from self._events(item)
            yield yaml.MappingEndEvent()
        else:
            yield yaml.SequenceStartEvent(anchor, None, True, flow_style=_is_flow(value))
            for item in value:
                yield from self._events(item)
            yield yaml.SequenceEndEvent()

    def _scalar(self, value: Any) -> Any:
        import yaml

        if not isinstance(value, str):
            # YAML 1.1 needs a point in a number with an exponent.
            text = json.dumps(value)
            text = text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
            return yaml.ScalarEvent(None, None, (True, False), text)
        # A block cannot contain what is not printable; nor can quotes without escapes, for every reader.
        printable = all(one.isprintable() or one == "\n" for one in value)
        style = None
        if _NUMBER.fullmatch(value):
            # 1e3 is a number here, though not in YAML 1.1.
            style = "'"
        elif "\n" in value or not printable:
            style = "|" if printable and value.strip("\n") else '"'
        plain = self._resolver.resolve(yaml.ScalarNode, value, (True, False)) == "tag:yaml.org,2002:str"
        return yaml.ScalarEvent(None, None, (plain, True), value, style=style)


def _is_flow(items: Iterable[Any]) -> bool:
    """Return whether a collection is written in one line."""
    items = list(items)
    texts = [str(item) for item in items]
    simple = not any(isinstance(item, (dict, list)) and item for item in items)
    pairs = bool(items) and all(isinstance(item, list) and len(item) == 2 for item in items)
    return (simple or pairs) and sum(map(len, texts)) <= _MAX_FLOW and not any("\n" in text for text in texts)

"""YAML as cassettes use it: what JSON can say, shared parts as aliases, and the line of every mapping."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CassetteError

if TYPE_CHECKING:
    import yaml

__all__ = ["Mapped", "dump", "parse"]

# libyaml recurses in C, and this reader in Python.
_MAX_DEPTH = 100
# A few aliases of aliases can stand for more than any memory holds, and all of that is looked at, each time.
# Recordings, of a hundred executions too, come to a fifth of a value for each character of their file.
_MAX_VALUES = 200_000
_MAX_VALUES_PER_CHARACTER = 4
_CHARACTERS_A_VALUE = 256
# Parts below this many characters of JSON are clearer where they stand than under a name.
_SHARED_FROM = 120
_FLOW_UP_TO = 80
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?(?:[eE][-+]?\d+)?")
# Python reads no more than 4300 digits, and takes quadratic time for it.
_LONGEST_NUMBER = 1000
_PLAIN = {"null": None, "~": None, "": None, "true": True, "false": False}


class Mapped(dict[str, Any]):
    """A mapping that knows in which line of its file it begins, and each of its names stands."""

    line = 0
    lines: Mapping[str, int] = {}

    def line_of(self, name: str) -> int:
        """The line of a name, that of the mapping if it is not there."""
        return self.lines.get(name, self.line)


def parse(text: str, source: str) -> Any:
    """The one document in `text`, whose mappings are `Mapped`.

    Plain words are text, but for null, true, false and JSON's numbers; so times and ``yes`` stay as they are.
    Raises `CassetteError`, with the line. A document must end with ``...``: one that does not was cut off.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Reader(yaml.parse(text, Loader=loader), source, len(text)).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}, line {mark.line + 1}" if mark is not None else source
        raise CassetteError(
            f"{place}: not YAML: {getattr(error, 'problem', None) or error}",
            hint="if the file was cut off, record it again",
        ) from None


class _Reader:
    """Values from the parser's events, in one pass."""

    def __init__(self, events: Iterator[Any], source: str, length: int) -> None:
        self._events = events
        self._source = source
        # What each stands for, and its size in values, those that aliases stand for included.
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._size = 0
        self._most = _MAX_VALUES + _MAX_VALUES_PER_CHARACTER * length

    def document(self) -> Any:
        import yaml

        value = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                value = self._value(next(self._events), 0)
                end = next(self._events)
                if not end.explicit:
                    mark = end.start_mark
                    # libyaml takes what has no newline at its end as if it had one.
                    last = mark.line + (mark.column > 0)
                    raise CassetteError(
                        f"{self._source}, line {last}: is cut off: the last line must be `...`",
                        hint="record it again",
                    )
        return value

    def _value(self, event: Any, depth: int) -> Any:
        import yaml

        if depth > _MAX_DEPTH:
            raise self._error(event, f"nested deeper than {_MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(event, f"the alias *{event.anchor} stands for nothing above it")
            value, size = self._anchors[event.anchor]
            self._size += size
            if self._size > self._most:
                raise self._error(event, f"its aliases stand for more than {self._most} values")
            return value
        if event.tag is not None and event.tag != "!":
            raise self._error(event, f"tags like {event.tag} have no meaning here")
        before = self._size
        self._size += 1
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            self._size += len(event.value) // _CHARACTERS_A_VALUE
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                value.append(self._value(item, depth + 1))
        else:
            value = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._size - before
        return value

    def _mapping(self, event: Any, depth: int) -> Mapped:
        import yaml

        found, lines = Mapped(), dict[str, int]()
        found.line, found.lines = event.start_mark.line + 1, lines
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise self._error(key, "a name must be text")
            if key.value in found:
                raise self._error(key, f"{key.value} stands there twice")
            mark: Any = key.start_mark
            lines[key.value] = mark.line + 1
            found[key.value] = self._value(next(self._events), depth + 1)
        return found

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style or not event.implicit[0]:
            return text
        if text in _PLAIN:
            return _PLAIN[text]
        number = _NUMBER.fullmatch(text)
        if number is None or len(text) > _LONGEST_NUMBER:
            return text
        return json.loads(text)

    def _error(self, event: Any, message: str) -> CassetteError:
        return CassetteError(f"{self._source}, line {event.start_mark.line + 1}: {message}")


def dump(value: Any) -> str:
    """`value` as one document that ends with ``...``; equal parts are written once and named."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def generate_anchor(self, node: yaml.Node) -> str:  # noqa: ARG002 - theirs
            self.last_anchor_id += 1
            return f"same{self.last_anchor_id}"

        def represent_text(self, text: str) -> yaml.Node:
            # A block cannot hold what is not printable; nor can quotes without escapes, to every reader.
            printable = all(one.isprintable() or one == "\n" for one in text)
            block = printable and "\n" in text and bool(text.strip("\n"))
            if _NUMBER.fullmatch(text):
                # 1e3 is a number here, though not in YAML 1.1.
                return self.represent_scalar("tag:yaml.org,2002:str", text, style="'")
            style = "|" if block else '"' if "\n" in text or not printable else None
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

        def represent_mapping_in_style(self, mapping: dict[str, Any]) -> yaml.Node:
            return self.represent_mapping("tag:yaml.org,2002:map", mapping, flow_style=_flows(mapping.values()))

        def represent_list_in_style(self, items: list[Any]) -> yaml.Node:
            return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=_flows(items))

    Dumper.add_representer(str, Dumper.represent_text)
    Dumper.add_representer(dict, Dumper.represent_mapping_in_style)
    Dumper.add_representer(list, Dumper.represent_list_in_style)
    text: str = yaml.dump(
        _shared(value, {}), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10_000, explicit_end=True
    )
    return text


def _flows(items: Any) -> bool:
    """Whether a collection stands in one line."""
    items = list(items)
    texts = [str(item) for item in items]
    simple = not any(isinstance(item, (dict, list)) and item for item in items)
    pairs = bool(items) and all(isinstance(item, list) and len(item) == 2 for item in items)
    return (simple or pairs) and sum(map(len, texts)) <= _FLOW_UP_TO and not any("\n" in text for text in texts)


def _shared(value: Any, seen: dict[str, Any]) -> Any:
    """The same, with one object for equal parts, so that YAML writes the later ones as aliases."""
    if isinstance(value, dict):
        value = {name: _shared(item, seen) for name, item in value.items()}
    elif isinstance(value, list):
        value = [_shared(item, seen) for item in value]
    else:
        return value
    text = json.dumps(value, sort_keys=True)
    return seen.setdefault(text, value) if len(text) >= _SHARED_FROM else value

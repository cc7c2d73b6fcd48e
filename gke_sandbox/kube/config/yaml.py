"""A strict YAML reader: plain values or one clear error, in bounded time, memory and depth.

`read_yaml` is the reader; its caller decides what scalars mean. `parse_kubeconfig_yaml` reads YAML as kubectl
does.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ...errors import ConfigError

__all__ = ["YamlMapping", "YamlProblem", "parse_kubeconfig_yaml", "read_yaml"]

# A kubeconfig is six levels deep. Code that uses the values may be recursive.
MAX_DEPTH = 100
# A kubeconfig of a thousand clusters has about 60,000.
MAX_KUBECONFIG_VALUES = 200_000
# A scalar counts as one value more for this many characters.
CHARACTERS_PER_VALUE = 256
# Longer integers are read as floats, since parsing takes quadratic time.
MAX_DIGITS = 64

_TAG = "tag:yaml.org,2002:"
_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+")
_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


class YamlProblem(ValueError):
    """The text is not YAML that `read_yaml` accepts."""

    def __init__(self, problem: str, line: int | None, detail: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        """A description that quotes nothing of the text, except the name of a duplicate key."""
        self.line = line
        """The line, counted from 1; None if it is unknown."""
        self.detail = detail
        """The YAML parser's description of a syntax error. It may quote the text."""


class YamlMapping(dict[str, Any]):
    """A mapping that knows its line and those of its keys, counted from 1."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int, lines: Mapping[str, int]) -> None:
        super().__init__()
        self.line = line
        self.lines = lines

    def line_of(self, key: str) -> int:
        """Return the line of a key, or that of the mapping if it has no such key."""
        return self.lines.get(key, self.line)


def read_yaml(
    text: str,
    scalar: Callable[[str, str | None, bool], Any],
    *,
    max_values: int,
    like_kubectl: bool = False,
    explicit_end: bool = False,
) -> Any:
    """Return the value of the first document, or None if the text is empty. Mappings are `YamlMapping`.

    `scalar` is called with each scalar's text, its tag (None if it has none) and whether it is plain (no quotes,
    no tag), and returns its value; it may raise ValueError with the problem. Keys are text: true, false and
    numbers become text. A duplicate key is an error; if `like_kubectl`, the last one counts, and merge keys
    (``<<``) are replaced. If `explicit_end`, the document must end with ``...``, which shows that it is complete.

    Aliases refer to the same object. What an alias refers to counts each time, in `max_values` and in the depth,
    because a few aliases of aliases can expand to gigabytes. Raise `YamlProblem` for anything else.
    """
    import yaml

    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return _YamlReader(events, scalar, max_values, like_kubectl).document(explicit_end)
    except yaml.YAMLError as error:
        mark, detail = getattr(error, "problem_mark", None), str(getattr(error, "problem", None) or error)
        # libyaml has a limit for the depth, too, and reads ahead of the events.
        problem = _TOO_DEEP if "nesting depth" in detail else "not YAML"
        raise YamlProblem(problem, None if mark is None else mark.line + 1, detail) from None


_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


class _YamlReader:
    def __init__(
        self,
        events: Iterator[Any],
        scalar: Callable[[str, str | None, bool], Any],
        max_values: int,
        like_kubectl: bool,
    ) -> None:
        import yaml

        self._yaml = yaml
        self._events = events
        self._to_value = scalar
        self._max_values = max_values
        self._like_kubectl = like_kubectl
        # Each anchor's value, its number of values and its height; None while the value is not complete.
        self._anchors: dict[str, tuple[Any, int, int] | None] = {}
        self._values = 0
        self._deepest = 0

    def document(self, explicit_end: bool) -> Any:
        next(self._events)
        if isinstance(next(self._events), self._yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), 0)
        end = next(self._events)
        if explicit_end and not end.explicit:
            # libyaml treats a last line without a newline as if it had one.
            line = end.start_mark.line + (end.start_mark.column > 0)
            raise YamlProblem("cut off: the last line must be `...`", line)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        kind = type(event)
        if kind is self._yaml.AliasEvent:
            return self._alias(event, depth)
        before = self._values
        self._count(event, 1, depth)
        outside, self._deepest = self._deepest, depth
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if kind is self._yaml.ScalarEvent:
            if len(event.value) >= CHARACTERS_PER_VALUE:
                self._count(event, len(event.value) // CHARACTERS_PER_VALUE, depth)
            value = self._scalar(event)
        elif event.tag not in (None, "!", f"{_TAG}seq", f"{_TAG}map"):
            raise _problem(event, "tags are not supported")
        elif kind is self._yaml.SequenceStartEvent:
            value, end = [], self._yaml.SequenceEndEvent
            while type(item := next(self._events)) is not end:
                value.append(self._value(item, depth + 1))
        else:
            value = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._values - before, self._deepest - depth
        if outside > self._deepest:
            self._deepest = outside
        return value

    def _count(self, event: Any, values: int, depth: int) -> None:
        self._values += values
        if self._values > self._max_values:
            raise _problem(event, f"more than {self._max_values} values, aliases included")
        if depth > MAX_DEPTH:
            raise _problem(event, _TOO_DEEP)

    def _alias(self, event: Any, depth: int) -> Any:
        if event.anchor not in self._anchors:
            raise _problem(event, "an alias refers to an anchor that is not defined above it")
        target = self._anchors[event.anchor]
        if target is None:
            raise _problem(event, "contains a recursive alias")
        value, values, height = target
        self._count(event, values, depth + height)
        self._deepest = max(self._deepest, depth + height)
        return value

    def _mapping(self, event: Any, depth: int) -> YamlMapping:
        lines, end = dict[str, int](), self._yaml.MappingEndEvent
        mapping = YamlMapping(event.start_mark.line + 1, lines)
        while type(first := next(self._events)) is not end:
            is_scalar = type(first) is self._yaml.ScalarEvent
            if self._like_kubectl and is_scalar and first.value == "<<" and _is_plain(first):
                item = next(self._events)
                merged = self._value(item, depth + 1)
                # In the order of the file, so that a merge replaces the keys above it.
                for each in reversed(merged) if isinstance(merged, list) else [merged]:
                    if not isinstance(each, dict):
                        raise _problem(item, "a merge key (<<) needs mappings")
                    mapping.update(each)
                continue
            key = self._value(first, depth + 1)
            if not isinstance(key, str):
                if not isinstance(key, (int, float)):
                    raise _problem(first, "a key must be text")
                key = str(key).lower() if isinstance(key, bool) else str(key)
            if key in mapping and not self._like_kubectl:
                raise _problem(first, f"duplicate key {key!r}")
            lines[key] = first.start_mark.line + 1
            mapping[key] = self._value(next(self._events), depth + 1)
        return mapping

    def _scalar(self, event: Any) -> Any:
        tag = None if event.tag == "!" else event.tag
        try:
            return self._to_value(event.value, tag, _is_plain(event))
        except ValueError as error:
            raise _problem(event, str(error)) from None


def _is_plain(event: Any) -> bool:
    return not event.style and bool(event.implicit[0])


def _problem(event: Any, problem: str) -> YamlProblem:
    return YamlProblem(problem, event.start_mark.line + 1)


def parse_kubeconfig_yaml(content: bytes, source: str) -> Any:
    """Return the first document in `content` as kubectl reads it, or None if it is empty.

    Raise `ConfigError` for anything that is not such a document. Its message starts with `source` and quotes
    nothing of the content, which may be secret.
    """
    try:
        return read_yaml(_text(content), _kubectl_scalar, max_values=MAX_KUBECONFIG_VALUES, like_kubectl=True)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{source}: not YAML: not UTF-8 text, or UTF-16 with a byte order mark (byte {error.start})"
        ) from None
    except YamlProblem as error:
        line = f", line {error.line}" if error.line is not None else ""
        raise ConfigError(f"{source}{line}: {error.problem}") from None


def _text(content: bytes) -> str:
    # PowerShell's `>` writes UTF-16.
    has_utf_16_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if has_utf_16_mark else "utf-8-sig")


@cache
def _resolver() -> Any:
    import yaml

    return yaml.resolver.Resolver()


def _kubectl_scalar(text: str, tag: str | None, plain: bool) -> Any:
    import yaml

    if plain and text in ("y", "Y", "n", "N"):
        # Booleans in YAML 1.1 and for client-go, but not for PyYAML.
        return text in ("y", "Y")
    if plain and _EXPONENT.fullmatch(text):
        # Numbers for client-go, but text for PyYAML if they have no dot or no sign. Out of range, they are text.
        number = float(text)
        return number if math.isfinite(number) else text
    kind = (tag or _resolver().resolve(yaml.ScalarNode, text, (plain, not plain))).removeprefix(_TAG)
    if kind in ("str", "timestamp", "value", "merge"):
        return text
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if kind in ("int", "float"):
        # 12:30 is a number in YAML 1.1, but text for client-go.
        return text if ":" in text else _number(text, kind)
    raise ValueError("not YAML: a value does not match its tag, or the tag is not supported")


def _number(text: str, kind: str) -> int | float:
    import yaml

    constructor, node = yaml.constructor.SafeConstructor(), yaml.ScalarNode(f"{_TAG}{kind}", text)
    try:
        if kind == "int" and len(text) <= MAX_DIGITS:
            return int(constructor.construct_yaml_int(node))
        number = float(constructor.construct_yaml_float(node))
    except (ValueError, IndexError):
        # PyYAML's errors for `!!int x`.
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("not YAML: not a finite number")
    return number

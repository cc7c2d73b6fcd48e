"""YAML for cassettes: JSON values, equal parts as aliases, and the line of each mapping."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
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
_TAG = "tag:yaml.org,2002:"
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

    class Serializer(yaml.serializer.Serializer, yaml.resolver.Resolver):
        ANCHOR_TEMPLATE = "same%d"

    serializer: Any = Serializer(explicit_end=True)
    yaml.resolver.Resolver.__init__(serializer)
    nodes, stream = _Nodes(serializer), io.StringIO()
    document, _, _ = nodes.node(value)
    # libyaml is faster, but escapes such characters.
    astral = any(max(text, default="") > "\uffff" for text in nodes.texts)
    dumper: Any = yaml.SafeDumper if astral else getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    serializer.emit = dumper(stream, allow_unicode=True, width=10_000).emit
    serializer.open()
    serializer.serialize(document)
    serializer.close()
    return stream.getvalue()


class _Nodes:
    """Makes one node of equal parts. They are compared by the numbers of their elements, in linear time."""

    def __init__(self, resolver: Any) -> None:
        import yaml

        self._yaml = yaml
        self._resolver = resolver
        self._numbers: dict[Any, int] = {}
        self._shared: dict[int, Any] = {}
        self.texts: dict[str, tuple[str | None, int, int]] = {}

    def node(self, value: Any) -> tuple[Any, int, int]:
        """Return the node of a value, its number, which equal values have in common, and its length as JSON."""
        key: Any
        new: Any
        if isinstance(value, str):
            if value not in self.texts:
                text = _json_text(value)
                self.texts[value] = _style(value), self._number(text), len(text)
            style, number, length = self.texts[value]
            return self._yaml.ScalarNode(f"{_TAG}str", value, style=style), number, length
        if isinstance(value, dict):
            found = [(*self.node(name), *self.node(item)) for name, item in value.items()]
            pairs = [(name, item) for name, _, _, item, _, _ in found]
            new = self._yaml.MappingNode(f"{_TAG}map", pairs, flow_style=_is_flow(value.values()))
            key = frozenset((name, item) for _, name, _, _, item, _ in found)
            length = sum(name + item + 4 for _, _, name, _, _, item in found)
        elif isinstance(value, list):
            parts = [self.node(item) for item in value]
            new = self._yaml.SequenceNode(f"{_TAG}seq", [node for node, _, _ in parts], flow_style=_is_flow(value))
            key = tuple(number for _, number, _ in parts)
            length = sum(size + 2 for _, _, size in parts)
        else:
            # YAML 1.1 needs a point in a number with an exponent.
            key = text = _json_text(value)
            text = text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text
            tag = self._resolver.resolve(self._yaml.ScalarNode, text, (True, False))
            return self._yaml.ScalarNode(tag, text), self._number(key), len(key)
        number = self._number(key)
        if length >= _MIN_SHARED:
            new = self._shared.setdefault(number, new)
        return new, number, max(length, 2)

    def _number(self, key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))


def _style(value: str) -> str | None:
    """Return the style of a text: quotes, a block, or None for plain text if possible."""
    # A block cannot contain what is not printable; nor can quotes without escapes, for every reader.
    printable = value.replace("\n", "").isprintable()
    if _NUMBER.fullmatch(value):
        # 1e3 is a number here, though not in YAML 1.1.
        return "'"
    if "\n" in value or not printable:
        return "|" if printable and value.strip("\n") else '"'
    return None


_json_text = json.JSONEncoder().encode


def _is_flow(items: Iterable[Any]) -> bool:
    """Return whether a collection is written in one line."""
    items = list(items)
    nested = any(isinstance(item, (dict, list)) and item for item in items)
    if nested and not all(isinstance(item, list) and len(item) == 2 for item in items):
        return False
    text = "".join(map(str, items))
    return len(text) <= _MAX_FLOW and "\n" not in text

"""YAML for cassettes: JSON values, equal parts as aliases, and the line of each mapping."""

from __future__ import annotations

import json
import re
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
    number = _NUMBER.fullmatch(text)
    return text if number is None or len(text) > _MAX_NUMBER else json.loads(text)


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
    return (simple or pairs) and sum(map(len, texts)) <= _MAX_FLOW and not any("\n" in text for text in texts)


def _shared(value: Any, seen: dict[str, Any]) -> Any:
    """The same, with one object for equal parts, so that YAML writes the later ones as aliases."""
    if isinstance(value, dict):
        value = {name: _shared(item, seen) for name, item in value.items()}
    elif isinstance(value, list):
        value = [_shared(item, seen) for item in value]
    else:
        return value
    text = json.dumps(value, sort_keys=True)
    return seen.setdefault(text, value) if len(text) >= _MIN_SHARED else value

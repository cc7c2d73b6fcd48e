"""YAML from files that others wrote: plain values or one clear error, in bounded time and depth."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError

__all__ = ["NotText", "parse_yaml"]

# A kubeconfig is six levels deep. libyaml composes recursively in C: at some 10,000 levels it crashes the process.
MAX_DEPTH = 64
# A kubeconfig of a thousand clusters has some 60,000.
MAX_EVENTS = 200_000


class NotText:
    """What stands for a number in a parsed file: no field that we read is one, and `token: 0123` is not ``83``."""


def parse_yaml(content: bytes, source: str) -> Any:
    """The one document in `content`, None if there is none.

    Mappings, lists, strings, booleans, None; numbers are `NotText`. Raises `ConfigError`, which begins with
    `source` and quotes nothing of the content (it may hold secrets), for anything that is not such a document, and
    for aliases: a few of them can stand for gigabytes.
    """
    import yaml

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not YAML: not UTF-8 text (byte {error.start})") from None
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """SafeLoader without numbers and dates."""

    for tag in ("int", "float"):
        # Huge numbers take quadratic time, too.
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", lambda _loader, _node: NotText())
    Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)

    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=Loader)):
            if isinstance(event, yaml.AliasEvent):
                raise ConfigError(
                    f"{source} uses a YAML alias{_line(event.start_mark)}, which is refused",
                    hint="Write the value out.",
                )
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ConfigError(f"{source} is nested deeper than {MAX_DEPTH} levels")
            if count > MAX_EVENTS:
                raise ConfigError(f"{source} holds more than {MAX_EVENTS} values")
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML{_line(getattr(error, 'problem_mark', None))}") from None
    except (ValueError, LookupError) as error:
        # PyYAML's answer to a tag that its scalar does not fit: `!!bool maybe`, `!!binary x`.
        raise ConfigError(f"{source} is not YAML that can be read ({type(error).__name__})") from None


def _line(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1})"

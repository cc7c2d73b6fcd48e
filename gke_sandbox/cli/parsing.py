"""What options are made of: the parser, the types of their values, and which option is which setting."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from .console import print_text

_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)", re.ASCII)
_SECONDS_OF = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = re.compile(r"(\d{1,18})(|k|M|G|Ki|Mi|Gi)", re.ASCII)
_BYTES_OF = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
# https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/, as `kubectl taint` writes it
_TOLERATION = re.compile(r"(?P<key>[^=:]+)(?:=(?P<value>[^:]*))?(?::(?P<effect>[A-Za-z]+))?")

#: The arguments of `Program` that are not options of the same name.
_PROGRAM = {"code": "the program", "files": "--file", "stdin": "--stdin", "args": "the arguments after --"}


class UsageError(Exception):
    """The command line cannot be what is meant. Nothing was sent to a cluster."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Parser(argparse.ArgumentParser):
    """argparse with our manners: no guessed abbreviations, errors raised, not printed."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", _Help)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), f"{self.prog} --help shows what can be given")

    def _print_message(self, message: str, file: object = None) -> None:  # noqa: ARG002 - theirs
        """Only help and version come here. argparse itself would not notice that they could not be printed."""
        print_text(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


# -- the types of values: argparse shows an ArgumentTypeError behind the option's name ----------------------


def text(given: str) -> str:
    """Text that can be sent: an argument that is not UTF-8 reaches Python as lone surrogates."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("is not UTF-8") from None
    return given


def seconds(given: str) -> float:
    """``90``, ``1.5``, ``90s``, ``5m``, ``2h``, ``1d``."""
    match = _SECONDS.fullmatch(given)
    if match is None:
        raise argparse.ArgumentTypeError(f"{given!r} is not a length of time, such as 90, 1.5, 90s, 5m, 2h or 1d")
    return float(match[1]) * _SECONDS_OF[match[2]]


def whole_seconds(given: str) -> int:
    """Like `seconds`, without a fraction."""
    length = seconds(given)
    if not length.is_integer():
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number of seconds")
    return int(length)


def size(given: str) -> int:
    """Bytes: ``1048576``, ``64k``, ``1Mi``."""
    match = _BYTES.fullmatch(given)
    if match is None:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of bytes, such as 65536, 64k or 1Mi")
    return int(match[1]) * _BYTES_OF[match[2]]


def number(given: str) -> int:
    """A whole number."""
    if re.fullmatch(r"-?\d{1,18}", given, re.ASCII) is None:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number")
    return int(given)


def pair(given: str) -> tuple[str, str]:
    """``K=V``."""
    key, sign, value = text(given).partition("=")
    if not key or not sign:
        raise argparse.ArgumentTypeError(f"{given!r} is not of the form K=V")
    return key, value


def variable(given: str) -> tuple[str, str | None]:
    """``K=V``, or ``K`` alone: its value is taken from the environment."""
    key, sign, value = text(given).partition("=")
    if not key:
        raise argparse.ArgumentTypeError(f"{given!r} is not of the form K=V or K")
    return key, value if sign else None


def toleration(given: str) -> dict[str, str]:
    """``KEY[=VALUE][:EFFECT]``, as `kubectl taint` writes a taint; without a value any is tolerated."""
    match = _TOLERATION.fullmatch(text(given))
    if match is None:
        raise argparse.ArgumentTypeError(f"{given!r} is not of the form KEY[=VALUE][:EFFECT]")
    made = {"key": match["key"], "operator": "Exists" if match["value"] is None else "Equal"}
    made.update({name: match[name] for name in ("value", "effect") if match[name] is not None})
    return made


# -- from settings to options and back -----------------------------------------------------------------------


def option_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The option that sets each thing, by its destination: ``{"cpu_limit": "--cpu", ...}``."""
    names: dict[str, str] = {}
    for action in parser._actions:
        long = [name for name in action.option_strings if name.startswith("--")]
        if long and action.dest not in names:
            names[action.dest] = long[0]
    return names


def in_options(message: str, options: Mapping[str, str]) -> str:
    """A message of the library's, with the names of settings replaced by those of the options."""

    def name(match: re.Match[str]) -> str:
        return options.get(match[0], match[0])

    def keyword(match: re.Match[str]) -> str:
        return f"{options[match[1]]} {match[2]}" if match[1] in options else match[0]

    # Only names of two words, and keywords with their value: "timeout" and "image" may just be words.
    message = re.sub(r"\b([a-z]+(?:_[a-z]+)*)=\"([^\"]*)\"", keyword, message)
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", name, message)


def spec_error_in_options(field: str, message: str, options: Mapping[str, str]) -> str:
    """What is wrong with a setting (`field` is its path), told of the option that it came from."""
    match = re.match(r"(?:resources\.)?(\w+)(.*)", field, re.DOTALL)
    reason = in_options(message.removeprefix(f"{field}: "), options)
    if match is None:
        return f"{field}: {reason}"
    name = _PROGRAM.get(match[1]) or options.get(match[1], match[1])
    entry = match[2]
    keyed = re.fullmatch(r"\[(['\"].*['\"])\]", entry, re.DOTALL)
    if keyed is not None:
        entry = f" {keyed[1]}"
    return f"{name}{entry}: {reason}"

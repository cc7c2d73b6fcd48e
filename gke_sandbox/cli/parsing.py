"""The argument parser, the types of option values, and errors in the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from .._checks import suggest_size
from .._setting_names import SETTING_NAMES, suggest
from .console import print_text

_TIME = re.compile(r"(\d{1,18}(?:\.\d*)?|\.\d+)([smhd]?)", re.ASCII)
_TIMES = re.compile(r"(?=\d)(?:(\d{1,18})d)?(?:(\d{1,18})h)?(?:(\d{1,18})m)?(?:(\d{1,18})s)?", re.ASCII)
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d{1,18})(|k|M|G|Ki|Mi|Gi)", re.ASCII)
_SIZE_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_TOLERATION = re.compile(r"(?P<key>[^=:]+)(?:=(?P<value>[^:]*))?(?::(?P<effect>[A-Za-z]+))?")
"""https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""


class UsageError(Exception):
    """The command line is invalid. No request was sent to a cluster."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Parser(argparse.ArgumentParser):
    """An argparse parser that accepts no abbreviations and raises `UsageError` instead of exiting."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", _Help)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        # argparse writes "argument -e/--env: expected one argument". Name the long option, and be clearer.
        names, colon, problem = message.removeprefix("argument ").partition(": ")
        problem = problem.replace("ignored explicit argument", "takes no value, got")
        problem = problem.replace("expected one argument", "requires a value")
        raise UsageError(names.rpartition("/")[2] + colon + problem, f"{self.prog} --help lists the options.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if action.option_strings:
            choices = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"must be one of {choices}, got {value!r}")
        near = suggest(value, {name: name for name in action.choices})
        raise UsageError(
            f"unknown command {value!r}" + (f"; did you mean {near}?" if near else ""),
            f"{self.prog} --help lists the commands. Options go after the command.",
        )

    def _print_message(self, message: str, file: object = None) -> None:  # noqa: ARG002 - overrides a method
        """Print the help or the version. argparse itself would ignore a failure to write."""
        print_text(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)
        # argparse does not count the indentation of commands, and would wrap the longest.
        self._action_max_length = 16


def unknown_argument(
    unknown: Sequence[str], parser: argparse.ArgumentParser, *, takes_program_args: bool
) -> UsageError:
    """Return the error for arguments that `parser` does not know, with the option that was probably meant."""
    hint = f"{parser.prog} --help lists the options."
    if takes_program_args:
        hint += " Arguments for the program go after --."
    wrong = next((each.partition("=")[0] for each in unknown if each.startswith("-")), None)
    if wrong is None:
        return UsageError(f"unexpected argument {unknown[0]!r}", hint)
    if wrong in parser._option_string_actions:
        return UsageError(f"{wrong} must come after the command", hint)
    names: dict[str, str] = {}
    for option, action in parser._option_string_actions.items():
        if option.startswith("--"):
            is_setting = action.dest in SETTING_NAMES and action.dest not in names
            names[action.dest if is_setting else option] = option
    near = suggest(wrong, names)
    return UsageError(f"unknown option {wrong}" + (f"; did you mean {near}?" if near else ""), hint)


# -- types of values: argparse adds the name of the option to the message of an ArgumentTypeError ----------------


def text(value: str) -> str:
    """Return text that UTF-8 can encode: Python decodes other arguments to lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("must be valid UTF-8") from None
    return value


def nonempty(value: str) -> str:
    """Return text that is not empty."""
    if not value:
        raise argparse.ArgumentTypeError("must not be empty")
    return text(value)


def seconds(value: str) -> float:
    """Return the seconds of a time: ``90``, ``1.5``, ``90s``, ``5m``, ``1h30m``, ``1d``."""
    match = _TIME.fullmatch(value)
    if match is None:
        match = _TIMES.fullmatch(value)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"must be a time such as 90, 1.5, 90s, 5m, 1h30m or 1d, got {value!r}"
            )
        return float(
            sum(int(count or 0) * _TIME_UNITS[unit] for count, unit in zip(match.groups(), "dhms", strict=True))
        )
    return float(match[1]) * _TIME_UNITS[match[2]]


def whole_seconds(value: str) -> int:
    """Return the seconds of a time without a fraction."""
    length = seconds(value)
    if not length.is_integer():
        raise argparse.ArgumentTypeError(f"must be a whole number of seconds, got {value!r}")
    return int(length)


def size(value: str) -> int:
    """Return the bytes of a size: ``1048576``, ``64k``, ``1Mi``."""
    match = _SIZE.fullmatch(value)
    if match is None:
        hint = suggest_size(value)
        raise argparse.ArgumentTypeError(
            f"must be a number of bytes such as 65536, 64k or 1Mi, got {value!r}{hint and f'. {hint}'}"
        )
    return int(match[1]) * _SIZE_UNITS[match[2]]


def number(value: str) -> int:
    """Return an integer."""
    if re.fullmatch(r"-?\d{1,18}", value, re.ASCII) is None:
        raise argparse.ArgumentTypeError(f"must be an integer, got {value!r}")
    return int(value)


def pair(value: str) -> tuple[str, str]:
    """Return key and value of ``K=V``."""
    key, sign, content = text(value).partition("=")
    if not key or not sign:
        raise argparse.ArgumentTypeError(f"must have the form K=V, got {value!r}")
    return key, content


def variable(value: str) -> tuple[str, str | None]:
    """Return name and value of ``K=V``, or name and None of ``K``."""
    key, sign, content = text(value).partition("=")
    if not key:
        raise argparse.ArgumentTypeError(f"must have the form K=V or K, got {value!r}")
    return key, content if sign else None


def toleration(value: str) -> dict[str, str]:
    """Return the toleration of a taint ``KEY[=VALUE][:EFFECT]``, as in ``kubectl taint``.

    Without VALUE, every value is tolerated.
    """
    match = _TOLERATION.fullmatch(text(value))
    if match is None:
        raise argparse.ArgumentTypeError(f"must have the form KEY[=VALUE][:EFFECT], got {value!r}")
    parts = {name: part for name, part in match.groupdict().items() if part is not None}
    return {**parts, "operator": "Equal" if "value" in parts else "Exists"}

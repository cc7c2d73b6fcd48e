"""The executor's fields, which have ADK's names, as settings of a Sandbox, which have Kubernetes'. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import AliasChoices, AliasPath

from ..errors import SpecError
from ..kube.quantity import QuantityError, parse_quantity
from ..settings import Settings

__all__ = ["FIELDS", "LIMIT_OF", "aliases", "in_field_names", "lowered", "to_settings"]

#: Field of the executor -> field of `Settings`.
FIELDS = {
    "namespace": "namespace",
    "image": "image",
    "timeout_seconds": "timeout",
    "startup_timeout_seconds": "startup_timeout",
    "cpu_requested": "cpu_request",
    "mem_requested": "memory_request",
    "cpu_limit": "cpu_limit",
    "mem_limit": "memory_limit",
    "runtime_class_name": "runtime_class_name",
    "node_selector": "node_selector",
    "service_account_name": "service_account_name",
    "labels": "labels",
    "max_output_bytes": "max_output_bytes",
    "max_file_bytes": "max_file_bytes",
}
#: A request, and its limit.
LIMIT_OF = {"cpu_requested": "cpu_limit", "mem_requested": "mem_limit"}
_FIELD_OF = {setting: field for field, setting in FIELDS.items()}
# Words of ours alone: "timeout" is also everybody else's.
_OURS = {setting: field for setting, field in _FIELD_OF.items() if setting != field and "_" in setting}
_OURS_PATTERN = re.compile(rf"\b({'|'.join(_OURS)})\b")


def in_field_names(text: str) -> str:
    """A message about settings in the words of the fields."""
    return _OURS_PATTERN.sub(lambda found: _OURS[found[0]], text)


def to_settings(values: Mapping[str, Any], more: Mapping[str, Any]) -> Settings:
    """Settings from the values of `FIELDS` and from `more` settings, those without a field.

    Raises `SpecError` in the names of the fields.
    """
    for name in more:
        if name in _FIELD_OF:
            raise SpecError(
                f"settings[{name!r}]", f"has a field of its own: {_FIELD_OF[name]}", hint="set that field"
            )
    try:
        return Settings().override(**{FIELDS[name]: value for name, value in values.items()}, **more)
    except SpecError as error:
        raise _renamed(error) from None


def _renamed(error: SpecError) -> SpecError:
    head, rest = re.fullmatch(r"(\w*)(.*)", error.field, re.DOTALL).groups()  # type: ignore[union-attr]
    where = _FIELD_OF[head] + rest if head in _FIELD_OF else f"settings[{head!r}]{rest}"
    message = error.message.removeprefix(f"{error.field}: ")
    return SpecError(where, in_field_names(message), hint=in_field_names(error.hint))


def lowered(request: str, limit: object) -> str:
    """The default `request` of a resource, or its `limit` if that is lower.

    Whoever sets only ``cpu_limit="100m"`` means a small sandbox, and the server would refuse the request.
    """
    # A limit that is none is told as such, and not as a request that nobody set.
    if not isinstance(limit, str):
        return request
    try:
        most = parse_quantity(limit).milli
    except QuantityError:
        return request
    return limit if 0 < most < parse_quantity(request).milli else request


def aliases(infos: Iterable[Any]) -> set[str]:
    """The other names under which these fields, pydantic's ``FieldInfo``, can be given."""
    found: set[str] = set()
    for info in infos:
        alias = info.validation_alias
        for each in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            first = each.path[0] if isinstance(each, AliasPath) else each
            if isinstance(first, str):
                found.add(first)
    return found

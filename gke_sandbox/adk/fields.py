"""Convert the executor's fields, which have ADK's names, to settings of a Sandbox. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import AliasChoices, AliasPath

from .._setting_names import ADK_FIELDS, SETTING_NAMES, suggest
from ..errors import SpecError
from ..settings import Settings

__all__ = ["aliases", "near_field", "to_settings"]


def to_settings(values: Mapping[str, Any], more: Mapping[str, Any]) -> Settings:
    """Return the settings for the executor's fields, `values` by name, and for its field `settings`, `more`.

    Raises `SpecError` with the names of the fields.
    """
    for name in more:
        if name in ADK_FIELDS:
            raise SpecError(
                f"settings[{name!r}]", "is a field of the executor", hint=f"Set {ADK_FIELDS[name]} instead."
            )
    try:
        return Settings().override(**{setting: values[field] for setting, field in ADK_FIELDS.items()}, **more)
    except SpecError as error:
        setting, bracket, entry = error.field.partition("[")
        field = ADK_FIELDS.get(setting, f"settings[{setting!r}]")
        raise error.renamed(ADK_FIELDS, field + bracket + entry) from None


def near_field(wrong: str, fields: Iterable[str]) -> str | None:
    """Return the field that was probably meant by an unknown name, or None if no field is similar."""
    names = {name: name for name in fields if name not in ADK_FIELDS.values()}
    in_settings = {setting: f"settings={{{setting!r}: ...}}" for setting in SETTING_NAMES}
    return suggest(wrong, {**names, **in_settings, **ADK_FIELDS})


def aliases(infos: Iterable[Any]) -> set[str]:
    """Return the other names under which fields (pydantic's ``FieldInfo``) can be set."""
    found: set[str] = set()
    for info in infos:
        alias = info.validation_alias
        for each in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            first = each.path[0] if isinstance(each, AliasPath) else each
            if isinstance(first, str):
                found.add(first)
    return found

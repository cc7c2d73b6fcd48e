"""The API server's rules for what every object has, and for ConfigMaps, in its own words.

https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
https://kubernetes.io/docs/concepts/configuration/configmap/
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from ...kube.names import annotation_key, config_map_key, dns_subdomain, label_key, label_value
from ..objects import Json
from .errors import FieldError, duplicate, invalid_value, not_allowed, required, too_long

CONFIG_MAP_LIMIT = 1024 * 1024
_ANNOTATIONS_LIMIT = 256 * 1024
_MOST_FINALIZERS = ("orphan", "foregroundDeletion")


def rule(field: str, value: str, words: Callable[[str], list[str]]) -> list[FieldError]:
    """What a rule for names says about one value, as field errors."""
    return [invalid_value(field, value, why) for why in words(value)]


def metadata_errors(
    metadata: Json, name_rule: Callable[[str], list[str]] = dns_subdomain, path: str = "metadata"
) -> list[FieldError]:
    """Of an object's own metadata: its name, and all that `template_metadata_errors` looks at."""
    errors = []
    if metadata.get("generateName"):
        # What follows the prefix cannot make it right, but for a dash at its end.
        errors += rule(f"{path}.generateName", metadata["generateName"].rstrip("-") or "-", name_rule)
    if metadata.get("name"):
        errors += rule(f"{path}.name", metadata["name"], name_rule)
    elif not metadata.get("generateName"):
        errors.append(required(f"{path}.name", "name or generateName is required"))
    return errors + template_metadata_errors(metadata, path)


def template_metadata_errors(metadata: Json, path: str) -> list[FieldError]:
    errors = labels_errors(metadata.get("labels", {}), f"{path}.labels")
    annotations = metadata.get("annotations", {})
    for key in annotations:
        errors += rule(f"{path}.annotations", key, annotation_key)
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        errors.append(too_long(f"{path}.annotations", _ANNOTATIONS_LIMIT))
    errors += _owner_errors(metadata.get("ownerReferences", ()), f"{path}.ownerReferences")
    for index, finalizer in enumerate(metadata.get("finalizers", ())):
        field = f"{path}.finalizers[{index}]"
        errors += rule(field, finalizer, label_key)
        if "/" not in finalizer and finalizer not in _MOST_FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            errors.append(invalid_value(field, finalizer, why))
    return errors


def labels_errors(labels: Json, path: str) -> list[FieldError]:
    errors = []
    for key, value in labels.items():
        errors += rule(path, key, label_key)
        errors += rule(path, value, label_value)
    return errors


def _owner_errors(references: list[Json], path: str) -> list[FieldError]:
    errors = []
    for index, reference in enumerate(references):
        for field, why in (
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ):
            if not reference.get(field):
                errors.append(invalid_value(f"{path}[{index}].{field}", reference.get(field, ""), why))
    controllers = [reference for reference in references if reference.get("controller")]
    if len(controllers) > 1:
        names = " and ".join(reference.get("name", "") for reference in controllers[:2])
        why = f'Only one reference can have Controller set to true. Found "true" in references for {names}'
        errors.append(invalid_value(path, [reference.get("name", "") for reference in references], why))
    return errors


def config_map_errors(config_map: Json) -> list[FieldError]:
    errors = metadata_errors(config_map["metadata"])
    data, binary = config_map.get("data", {}), config_map.get("binaryData", {})
    for key in data:
        errors += rule(f"data[{key}]", key, config_map_key)
        if key in binary:
            errors.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in binary:
        errors += rule(f"binaryData[{key}]", key, config_map_key)
    size = sum(len(value.encode()) for value in data.values())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > CONFIG_MAP_LIMIT:
        # The field's path is empty there, and prints as this.
        errors.append(too_long("[]", CONFIG_MAP_LIMIT))
    return errors


def config_map_update_errors(new: Json, old: Json) -> list[FieldError]:
    """What may not be changed any more.

    https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-immutable
    """
    errors = config_map_errors(new)
    if old.get("immutable"):
        why = "field is immutable when `immutable` is set"
        if not new.get("immutable"):
            errors.append(not_allowed("immutable", why))
        errors += [
            not_allowed(field, why) for field in ("data", "binaryData") if new.get(field, {}) != old.get(field, {})
        ]
    return errors


def unique(values: list[tuple[str, str]]) -> list[FieldError]:
    """A Duplicate for each value that came before, from (field, value)."""
    seen: set[str] = set()
    errors = []
    for field, value in values:
        if value in seen:
            errors.append(duplicate(field, value))
        seen.add(value)
    return errors

"""Where a fault acts, and which requests or pods it applies to."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Point = Literal[
    "request",
    "body",
    "watch",
    "attach",
    "deadline",
    "mutate",
    "admit",
    "schedule",
    "accept",
    "sandbox",
    "pull",
    "config",
    "run",
]


@dataclass(frozen=True)
class Match:
    """Selects requests or pods. A field that is None matches everything.

    For actions on a pod, `resource` is ``pods`` and the verb is empty. `HideConfigMap` matches the ConfigMap and
    `EndJob` matches the Job.
    """

    verb: str | None = None
    """The API verb: ``get``, ``list``, ``watch``, ``create`` or ``delete``."""
    resource: str | None = None
    """A plural name, with its subresource if there is one: ``jobs``, ``pods/log``, ``pods/attach``."""
    namespace: str | None = None
    name: str | None = None
    """The name of the object, or a pattern such as ``gke-sandbox-*``."""

    def matches(self, verb: str, resource: str, namespace: str, name: str) -> bool:
        return (
            self.verb in (None, verb)
            and self.resource in (None, resource)
            and self.namespace in (None, namespace)
            and (self.name is None or fnmatchcase(name, self.name))
        )

"""Objects of the API server as JSON, and functions for all of them.

Stored objects are never changed in place: an update creates a new object that shares the unchanged parts. This
keeps the watch history small, and a watch can read an old version at any time.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

Json = dict[str, Any]

# The alphabet of generated names has no vowels, so that they contain no words.
# https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True)
class Key:
    """Identifies an object: the plural name of its resource, its namespace ("" for none) and its name."""

    plural: str
    namespace: str
    name: str


def with_metadata(obj: Json, **changes: Any) -> Json:
    """Return a copy of `obj` with these metadata fields; None removes a field."""
    metadata = {**obj["metadata"], **changes}
    return {**obj, "metadata": {name: value for name, value in metadata.items() if value is not None}}


def field(obj: Json, path: str) -> object:
    """Return the field at a path such as ``spec.nodeName``, or "" if it is missing."""
    value: object = obj
    for name in path.split("."):
        value = value.get(name, "") if isinstance(value, dict) else ""
    return value


def owner_uids(obj: Json) -> list[str]:
    """Return the uids of the owners of the object."""
    return [reference["uid"] for reference in obj["metadata"].get("ownerReferences", ())]


def controller_uid(obj: Json) -> str | None:
    """Return the uid of the controller of the object, or None."""
    for reference in obj["metadata"].get("ownerReferences", ()):
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def is_deleting(obj: Json) -> bool:
    """Return whether the object is being deleted."""
    return "deletionTimestamp" in obj["metadata"]


class Calendar:
    """The current date and time, and timestamps in the formats of the API."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return self._now().astimezone(timezone.utc)

    def stamp(self, ahead: float = 0.0) -> str:
        """Return the time `ahead` seconds from now as RFC 3339 with whole seconds (``metav1.Time``)."""
        return _seconds(self.now().timestamp() + ahead)

    def micro_stamp(self) -> str:
        """Return the current time as RFC 3339 with microseconds (``metav1.MicroTime``)."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(timestamp: float) -> str:
    return datetime.fromtimestamp(int(timestamp), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class IdGenerator:
    """Random names, ids and times that the server chooses."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def uid(self) -> str:
        """Return a uid of an object."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def suffix(self) -> str:
        """Return the five characters that the server appends to a generateName."""
        return "".join(self._rng.choice(_NAME_ALPHABET) for _ in range(5))

    def container_id(self) -> str:
        """Return the id of a container."""
        return f"{self._rng.getrandbits(256):064x}"

    def between(self, low: float, high: float) -> float:
        """Return a random number in this range."""
        return self._rng.uniform(low, high)

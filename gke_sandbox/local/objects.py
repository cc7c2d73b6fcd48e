"""JSON objects as the API server holds them, and the few things that are done with all of them.

A stored object is never changed in place: an update makes a new one that shares its unchanged parts with
the old. That keeps the watch history small and lets a watcher read an object at any later time.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

Json = dict[str, Any]

# The alphabet of generated names: no vowels, so that no words come out.
# https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True)
class Key:
    """Where an object is: its resource's plural name, its namespace ("" for none), its name."""

    plural: str
    namespace: str
    name: str


def with_metadata(obj: Json, **changes: Any) -> Json:
    """A copy of `obj` with these metadata fields; None takes a field away."""
    metadata = {**obj["metadata"], **changes}
    return {**obj, "metadata": {name: value for name, value in metadata.items() if value is not None}}


def owner_uids(obj: Json) -> list[str]:
    return [reference["uid"] for reference in obj["metadata"].get("ownerReferences", ())]


def controller_uid(obj: Json) -> str | None:
    """The uid of the owner that controls the object, if one does."""
    for reference in obj["metadata"].get("ownerReferences", ()):
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def is_deleting(obj: Json) -> bool:
    return "deletionTimestamp" in obj["metadata"]


class Calendar:
    """Calendar time as the API writes it."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now().astimezone(timezone.utc)

    def stamp(self, ahead: float = 0.0) -> str:
        """RFC 3339 with whole seconds: ``metav1.Time``. `ahead` seconds from now."""
        return _seconds(self.now().timestamp() + ahead)

    def micro_stamp(self) -> str:
        """RFC 3339 with microseconds: ``metav1.MicroTime``."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(timestamp: float) -> str:
    return datetime.fromtimestamp(int(timestamp), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class IdGenerator:
    """Everything random that the server chooses."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def uid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def suffix(self) -> str:
        """The five characters that follow a generateName."""
        return "".join(self._rng.choice(_NAME_ALPHABET) for _ in range(5))

    def container_id(self) -> str:
        return f"{self._rng.getrandbits(256):064x}"

    def between(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)

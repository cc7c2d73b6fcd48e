"""Recordings that several tests replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RecordedOnce = Callable[..., tuple[Path, Any]]


@pytest.fixture(scope="module")
def recorded_once(tmp_path_factory: pytest.TempPathFactory) -> RecordedOnce:
    """Return a function that calls another one with a path and arguments, once for all equal arguments.

    It returns the path and the result.
    """
    made: dict[Any, tuple[Path, Any]] = {}

    def once(record: Callable[..., Any], *arguments: Any) -> tuple[Path, Any]:
        key = record, *map(repr, arguments)
        if key not in made:
            path = tmp_path_factory.mktemp("recordings") / "c.yaml"
            made[key] = path, record(path, *arguments)
        return made[key]

    return once

"""End the processes that a test started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .processes import end_all


@pytest.fixture(autouse=True)
def _processes_end() -> Iterator[None]:
    yield
    end_all()

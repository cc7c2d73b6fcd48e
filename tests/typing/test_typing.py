"""The public interface is typed: mypy accepts correct programs and rejects wrong ones."""

from __future__ import annotations

import pytest

from tests.typing.check import check


@pytest.mark.timeout(180)  # mypy checks the dependencies, too
def test_mypy_accepts_correct_uses_and_reports_each_wrong_one() -> None:
    pytest.importorskip("mypy")
    assert check("mypy") == []

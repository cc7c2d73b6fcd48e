"""The documentation agrees with the code."""

from __future__ import annotations

from gke_sandbox._diagnosis import CAUSES

from . import troubleshooting


def test_troubleshooting_lists_every_cause() -> None:
    """``python -m tests.troubleshooting`` updates the page."""
    page = troubleshooting.PAGE.read_text()
    assert page == troubleshooting.written(page)
    assert [name for name in (each.name for each in CAUSES) if f"| `{name}` |" not in page] == []

"""What the documentation says of the code is what the code says."""

from __future__ import annotations

from gke_sandbox._diagnosis import CAUSES

from . import troubleshooting


def test_troubleshooting_has_every_cause_as_it_is() -> None:
    """``python -m tests.troubleshooting`` writes it."""
    page = troubleshooting.PAGE.read_text()
    assert page == troubleshooting.written(page)
    assert [name for name in (each.name for each in CAUSES) if f"| `{name}` |" not in page] == []

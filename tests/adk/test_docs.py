"""docs/adk.md is complete and its programs work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.results import STDERR_HEADING
from gke_sandbox.adk.unsupported import HOOKS
from tests.adk.kit import QUIET

pytestmark = QUIET

PAGE = (Path(__file__).parent.parent.parent / "docs" / "adk.md").read_text()


@pytest.mark.parametrize("name", [*GkeCodeExecutor.model_fields, *HOOKS, STDERR_HEADING])
def test_every_field_and_private_method_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_the_agent_of_the_page_can_be_created() -> None:
    program = next(iter(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)))
    names: dict[str, object] = {}
    exec(program, names)
    agent = names["root_agent"]
    assert agent.code_executor.mem_limit == "1Gi"  # type: ignore[attr-defined]

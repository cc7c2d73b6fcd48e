"""examples/adk_agent, as `adk run` loads it."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adk.kit import QUIET

pytestmark = QUIET

ROOT = Path(__file__).parent.parent.parent
SETTINGS = (
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_GENAI_USE_ENTERPRISE",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "AGENT_MODEL",
    "AGENT_NAMESPACE",
)


def test_the_example_runs_without_an_api_key_and_without_a_cluster(tmp_path: Path) -> None:
    # The command stores sessions in the directory of the agent.
    shutil.copytree(ROOT / "examples" / "adk_agent", tmp_path / "adk_agent")
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-m", "google.adk.cli", "run", "adk_agent"]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        input="What is the mean of 2, 4 and 9?\nexit\n",
        capture_output=True,
        text=True,
        # Without runsc on PATH the pods are processes, which are faster.
        env={**plain, "PYTHONPATH": str(ROOT), "PATH": os.path.dirname(sys.executable)},
        check=False,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stderr
    said = [line.partition("[calculator]: ")[2] for line in ran.stdout.splitlines() if "[calculator]: " in line]
    assert said == ["I shall compute it.", "I misspelled a name.", "The mean is 5. It is also in mean.txt."]
    page = (ROOT / "docs" / "adk.md").read_text()
    shown = page.partition("$ adk run examples/adk_agent\n")[2].partition("[user]: exit\n")[0]
    assert shown.count("[user]: ") == 1
    printed = shown.replace("[user]: What is the mean of 2, 4 and 9?\n", "[user]: ")
    # The first line contains the time.
    assert printed.partition("\n")[2] in ran.stdout


@pytest.mark.parametrize(
    ("given", "gemini"),
    [
        ({}, False),
        ({"GOOGLE_API_KEY": "x"}, True),
        ({"GEMINI_API_KEY": "x"}, True),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "True"}, True),
        ({"GOOGLE_GENAI_USE_ENTERPRISE": "1"}, True),
        ({"GOOGLE_GENAI_USE_ENTERPRISE": "0", "GOOGLE_GENAI_USE_VERTEXAI": "1"}, False),
        ({"GOOGLE_GENAI_USE_ENTERPRISE": "0", "GOOGLE_API_KEY": "x"}, True),
    ],
)
def test_the_model_is_gemini_if_its_credentials_are_configured(
    given: dict[str, str], gemini: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(ROOT / "examples")
    model = importlib.import_module("adk_agent.agent").model
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert isinstance(model(), str) is gemini

"""examples/adk_agent, as `adk run` loads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.adk.kit import QUIET

pytestmark = QUIET

ROOT = Path(__file__).parent.parent.parent


def test_the_example_needs_neither_a_key_nor_a_cluster(tmp_path: Path) -> None:
    # The command keeps sessions beside the agent.
    shutil.copytree(ROOT / "examples" / "adk_agent", tmp_path / "adk_agent")
    keys = ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "AGENT_NAMESPACE")
    plain = {name: value for name, value in os.environ.items() if name not in keys}
    command = [sys.executable, "-m", "google.adk.cli", "run", "adk_agent"]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        input="What is the mean of 2, 4 and 9?\nexit\n",
        capture_output=True,
        text=True,
        # Without runsc on PATH the pods are processes, for speed.
        env={**plain, "PYTHONPATH": str(ROOT), "PATH": os.path.dirname(sys.executable)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = [line.partition("[calculator]: ")[2] for line in ran.stdout.splitlines() if "[calculator]: " in line]
    assert said == ["I shall compute it.", "A slip of mine.", "The mean is 5. It is also in mean.txt."]

"""Scripts of skills (SkillToolset), which google-adk wraps into a program."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "google.adk.tools.skill_toolset",
    reason="google-adk before 1.27 runs no scripts of skills",
    exc_type=ModuleNotFoundError,
)

import inspect
import logging
import random
import re
import shutil
from collections.abc import Iterator
from typing import Any

from google.adk.skills import models
from google.adk.tools import skill_toolset
from google.adk.tools.skill_toolset import SkillToolset
from google.genai import types

from gke_sandbox import Cluster
from gke_sandbox.adk import GkeCodeExecutor
from tests.adk.kit import HAS_EXIT_CODE, QUIET, Conversation, agent, call, converse, local

pytestmark = QUIET

SAVES_FILES = "save_output_artifacts" in inspect.signature(SkillToolset.__init__).parameters
saves_files = pytest.mark.skipif(not SAVES_FILES, reason="google-adk before 2.12 saves no files of scripts")

# google-adk 1.27 uses another name.
PATH = "script_path" if '"script_path"' in inspect.getsource(skill_toolset) else "file_path"
takes_lists = pytest.mark.skipif(PATH == "script_path", reason="google-adk 1.27 takes arguments by name only")

SCRIPTS = {
    "hello.py": "import sys\nprint('hello', *sys.argv[1:])\nprint(open('references/name.txt').read())\n",
    "fails.py": "import sys\nprint('begun')\nsys.exit(3)\n",
    "raises.py": "print('begun')\nraise ValueError('a wrong value')\n",
    "warns.py": "import warnings\nprint('the result')\nwarnings.warn('old')\n",
    "writes.py": "import os\nos.makedirs('out', exist_ok=True)\n"
    "open('out/plot.png', 'wb').write(b'\\x89PNG')\nprint('written')\n",
    "writes_much.py": "import os\nopen('big.bin', 'wb').write(os.urandom(1 << 20))\nprint('written')\n",
    "writes_and_fails.py": "import os\nopen('log.txt', 'w').write('step 1')\nraise SystemExit(2)\n",
    "hello.sh": '#!/bin/sh\necho hello "$@"\ncat references/name.txt\necho careful >&2\n',
    "fails.sh": "echo begun\nexit 4\n",
    "floods.sh": "echo begun\nyes | head -c 2000000\nexit 4\n",
    "writes.sh": "echo a,b > table.csv\necho written\n",
    "writes_much.sh": "head -c 1048576 /dev/urandom > big.bin\necho written\n",
}


def skill(**assets: str) -> models.Skill:
    return models.Skill(
        frontmatter=models.Frontmatter(name="greeter", description="Greets."),
        instructions="Run the script.",
        resources=models.Resources(
            references={"name.txt": "Ada"},
            assets=dict(assets),
            scripts={name: models.Script(src=source) for name, source in SCRIPTS.items()},
        ),
    )


@pytest.fixture(scope="module")
def executor() -> Iterator[GkeCodeExecutor]:
    with local(timeout_seconds=20) as made:
        yield made


def run(executor: GkeCodeExecutor, script: str, *args: str) -> tuple[dict[str, Any], Conversation]:
    saving = {"save_output_artifacts": True} if SAVES_FILES else {}
    toolset = SkillToolset([skill()], code_executor=executor, **saving)
    more = {"args": list(args)} if args else {}
    turn = call("run_skill_script", skill_name="greeter", **{PATH: f"scripts/{script}"}, **more)
    talk = converse(agent(None, turn, "Done.", tools=[toolset]))
    assert talk.last == "Done."
    return talk.responses[0], talk


@takes_lists
def test_a_python_script_gets_its_arguments_and_the_files_of_the_skill(executor: GkeCodeExecutor) -> None:
    response, _ = run(executor, "hello.py", "big", "world")
    assert (response["stdout"], response["stderr"]) == ("hello big world\nAda\n", "")
    assert response["status"] == "success"


def test_a_toolset_without_an_executor_uses_the_one_of_the_agent(executor: GkeCodeExecutor) -> None:
    turn = call("run_skill_script", skill_name="greeter", **{PATH: "scripts/hello.py"})
    talk = converse(agent(executor, turn, "Done.", tools=[SkillToolset([skill()])]))
    assert talk.responses[0]["stdout"] == "hello\nAda\n"


@takes_lists
def test_stdout_and_stderr_of_a_shell_script_are_separate(executor: GkeCodeExecutor) -> None:
    response, _ = run(executor, "hello.sh", "world")
    assert (response["stdout"], response["stderr"]) == ("hello world\nAda", "careful\n")
    assert response["status"] == "warning"


@pytest.mark.parametrize(
    ("script", "words"), [("fails.py", "exit code 3"), ("raises.py", "ValueError: a wrong value")]
)
def test_a_failing_python_script_is_an_error(executor: GkeCodeExecutor, script: str, words: str) -> None:
    response, _ = run(executor, script)
    # Without an exit code, google-adk reports a script with output as a warning.
    assert response["status"] == ("error" if HAS_EXIT_CODE else "warning")
    assert words in response["stderr"]
    assert response["stdout"] == "begun\n"


def test_a_failing_shell_script_is_an_error(executor: GkeCodeExecutor) -> None:
    response, _ = run(executor, "fails.sh")
    assert (response["status"], response["stderr"], response["stdout"]) == ("error", "Exit code 4", "begun\n")


def test_a_warning_of_a_script_is_not_a_failure(executor: GkeCodeExecutor) -> None:
    response, _ = run(executor, "warns.py")
    assert response["status"] == "success"
    assert response["stdout"].startswith("the result\n")
    assert "UserWarning: old" in response["stdout"]


def test_a_shell_script_whose_exit_code_is_truncated_is_an_error(
    executor: GkeCodeExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """google-adk puts the exit code at the end of stdout, after the output of the script."""
    caplog.set_level(logging.WARNING, logger="gke_sandbox")
    response, _ = run(executor, "floods.sh")
    assert (response["status"], response["stdout"]) == ("error", "")
    assert "exit code of the script is unknown" in response["stderr"]
    assert "more bytes of stdout were over the limit (max_output_bytes) and dropped" in response["stderr"]
    assert "\ny\ny\n" in response["stderr"]
    assert len(response["stderr"]) < 6000
    assert re.search(r": dropped \d{7} bytes of stdout, 0 of stderr, 0 files \(gke-sandbox-", caplog.text)


@saves_files
@pytest.mark.parametrize(
    ("script", "name", "content", "kind"),
    [("writes.py", "out/plot.png", b"\x89PNG", "image/png"), ("writes.sh", "table.csv", b"a,b\n", "text/csv")],
)
def test_files_of_a_script_become_artifacts(
    executor: GkeCodeExecutor, script: str, name: str, content: bytes, kind: str
) -> None:
    response, talk = run(executor, script)
    assert response["saved_artifacts"] == [name]
    assert response["stdout"].strip() == "written"
    saved = talk.artifact(name)
    assert saved is not None
    assert saved.inline_data == types.Blob(data=content, mime_type=kind)


@saves_files
def test_files_of_a_failing_script_are_not_in_its_stderr(executor: GkeCodeExecutor) -> None:
    response, talk = run(executor, "writes_and_fails.py")
    assert response["status"] == "error"
    assert talk.artifacts() == ["log.txt"]
    assert response["stderr"] == "The program ended with exit code 2 and wrote nothing to stderr.\n"


@saves_files
@pytest.mark.parametrize("script", ["writes_much.py", "writes_much.sh"])
def test_files_over_the_limit_of_stdout_are_an_error(executor: GkeCodeExecutor, script: str) -> None:
    """google-adk sends them as base64 in one line of stdout: 1 MiB of output holds 768 KiB of files."""
    response, talk = run(executor, script)
    assert response["status"] == "error"
    assert "saved_artifacts" not in response
    assert talk.artifacts() == []
    assert "the files that it created are lost" in response["stderr"]
    assert "Its output until then:\nwritten\n" in response["stderr"]
    assert "more bytes of stdout were over the limit (max_output_bytes) and dropped" in response["stderr"]
    assert len(response["stderr"]) < 1000


@saves_files
def test_a_higher_limit_returns_the_files() -> None:
    with local(max_output_bytes=2 << 20, max_file_bytes=1 << 20) as executor:
        response, talk = run(executor, "writes_much.py")
    assert response["saved_artifacts"] == ["big.bin"]
    saved = talk.artifact("big.bin")
    assert saved is not None
    assert saved.inline_data is not None
    assert len(saved.inline_data.data or b"") == 1 << 20


def test_a_skill_that_is_too_large_for_a_config_map_is_an_error(executor: GkeCodeExecutor) -> None:
    noise = random.Random(6).randbytes(2 << 20).hex()
    turn = call("run_skill_script", skill_name="greeter", **{PATH: "scripts/hello.py"})
    toolset = SkillToolset([skill(noise=noise)], code_executor=executor)
    response = converse(agent(None, turn, "Done.", tools=[toolset])).responses[0]
    assert response["status"] == "error"
    assert response["stderr"].startswith("The program was not run: code")


@saves_files
@pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")
def test_scripts_run_under_gvisor() -> None:
    with GkeCodeExecutor(cluster=Cluster.local("gvisor"), timeout_seconds=30) as executor:
        response, talk = run(executor, "writes.sh")
    assert (response["status"], talk.artifacts()) == ("success", ["table.csv"])

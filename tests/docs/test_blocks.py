"""Every code block of the documents is executed, or has the reason why it is not."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from gke_sandbox.cli import build_parser

from .blocks import DOCUMENTS, ROOT, Block, blocks, commands
from .notebook import compile_python, notebook

ALL = [block for document in DOCUMENTS for block in blocks(document)]
CONSOLE = [block for block in ALL if block.language == "console"]
LANGUAGES = {"python", "console", "yaml", "json", "mermaid", "dockerfile", "toml", "text"}
# .ci/adk installs the extra, and tests/adk runs the example.
ADK = ("pip install 'gke-sandbox[adk]'", "adk run examples/adk_agent")
WITH_ADK = bool(find_spec("google") and find_spec("google.adk"))

# Warnings of google-adk and its dependencies are ignored; warnings of this package are errors.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("error:::gke_sandbox")]


def executed(document: Path) -> list[Block]:
    """Return the blocks that a test executes. Those that need google-adk are executed if it is installed."""
    if document.name == "README.es.md":
        return []  # test_structure.py compares its blocks with those of README.md
    found = [each for each in blocks(document) if each.language in ("python", "console") and not each.marker]
    return [each for each in found if WITH_ADK or not re.search(r"\badk\b|GkeCodeExecutor", each.text)]


@pytest.mark.timeout(180)  # on a busy machine
@pytest.mark.parametrize("document", [each for each in DOCUMENTS if executed(each)], ids=lambda path: path.name)
def test_the_blocks_of_a_document_work_in_order(document: Path, tmp_path: Path) -> None:
    with notebook(tmp_path) as session:
        for block in executed(document):
            session.execute(block)


def test_every_block_names_its_language() -> None:
    assert [block.place for block in ALL if block.language not in LANGUAGES] == []


def test_python_that_is_not_executed_compiles_and_its_imports_exist() -> None:
    for block in ALL:
        if block.language == "python" and block.marker:
            compile_python(block)
            for node in ast.walk(ast.parse(block.text)):
                module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
                if module == "gke_sandbox.adk" and not WITH_ADK:
                    continue
                if module.split(".")[0] == "gke_sandbox":
                    exec(ast.unparse(node), {})


def gke_sandbox_commands() -> Iterator[tuple[str, list[str]]]:
    for block in CONSOLE:
        for command in commands(block):
            for part in re.split(r" (?:[|]|&&) ", command.line):
                words = shlex.split(part, comments=True)
                if words and Path(words[0]).name == "gke-sandbox" and "unknown option" not in command.output:
                    end = next((i for i, word in enumerate(words) if word in ("<", ">")), len(words))
                    yield block.place, words[1:end]


def test_every_gke_sandbox_command_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for place, arguments in gke_sandbox_commands():
        try:
            build_parser().parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)
        except (SystemExit, argparse.ArgumentError) as end:
            if getattr(end, "code", 2):  # --help ends with 0
                pytest.fail(f"{place}: {arguments}: {end} {capsys.readouterr().err}")


def test_files_that_kubectl_applies_and_extras_that_pip_installs_exist() -> None:
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for block in CONSOLE:
        for command in commands(block):
            for path in re.findall(r"kubectl apply -f (gke_sandbox/\S+|examples/\S+)", command.line):
                assert (ROOT / path).is_file(), f"{block.place}: {path}"
            for extra in re.findall(r"pip install .*(?:gke-sandbox|\.)\[(\w+)\]", command.line):
                assert extra in extras, f"{block.place}: {extra}"


def test_yaml_and_json_can_be_parsed() -> None:
    for block in ALL:
        try:
            if block.language == "yaml":
                list(yaml.safe_load_all(block.text))
            elif block.language == "json":
                json.loads(block.text)
        except ValueError as error:
            pytest.fail(f"{block.place}: {error}")


@pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="an sdist has no .ci")
def test_only_what_ci_executes_is_marked_so() -> None:
    executed_there = re.findall(r"readme_command '(.+?)'", (ROOT / ".ci" / "run").read_text())
    assert len(executed_there) == 2
    for block in ALL:
        if block.marker == "ci":
            for command in commands(block):
                found = any(pattern in command.line for pattern in executed_there)
                of_adk = block.place.startswith("docs/adk.md") and command.line in ADK
                assert found or of_adk, f"{block.place}: {command.line}"

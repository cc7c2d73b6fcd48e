"""docs/cli.md and the help agree with the parser, and ``--help`` is fast."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gke_sandbox import __version__, _exit_codes
from gke_sandbox.cli import build_parser, main

from .processes import ROOT, start_real

DOCS = ROOT / "docs" / "cli.md"


def run_parser() -> argparse.ArgumentParser:
    return subcommands()["run"]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("there are no subcommands")


def table() -> str:
    """Return the table of options for docs/cli.md."""
    lines = ["| option | |", "|---|---|"]
    for group in run_parser()._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if not actions or group.title is None:
            continue
        lines.append(f"| **{group.title}** | {group.description or ''} |".replace("|  |", "| |"))
        for action in actions:
            value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else "")
            names = ", ".join(f"`{f'{name} {value}'.strip()}`" for name in action.option_strings) or f"`{value}`"
            if action.nargs == 0:
                names = ", ".join(f"`{name}`" for name in action.option_strings)
            lines.append(f"| {names} | {action.help} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_options_agrees_with_the_parser() -> None:
    found = re.search(r"<!-- options -->\n(.*)<!-- end of options -->", DOCS.read_text(), re.DOTALL)
    assert found is not None
    assert found[1] == table()


def test_every_option_has_help() -> None:
    for parser in subcommands().values():
        assert [action.option_strings for action in parser._actions if not action.help] == []


OF_ONE_COMMAND = {
    "--json",
    "--older-than",
    "--all",
    "--dry-run",
    "--all-namespaces",
    "--run",
    "--runs",
    "--warm",
}
"""Options that the section of their command in docs/cli.md describes."""
WITHOUT_A_CLUSTER = {"manifest", "rbac"}
"""Commands that send no request."""


def option_of(action: argparse.Action) -> str:
    """Return the long name of an option, or an empty string: ``bench`` uses ``-n`` for something else."""
    return action.option_strings[-1] if action.option_strings else ""


def test_the_options_of_rbac_are_documented() -> None:
    page = DOCS.read_text().partition("## `gke-sandbox rbac`")[2].partition("\n## ")[0]
    options = [action for action in subcommands()["rbac"]._actions if action.dest != "help"]
    names = [option_of(action) + (f" {action.metavar}" if action.metavar else "") for action in options]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_options_of_the_cluster_are_the_same_for_every_command() -> None:
    """docs/cli.md describes them once."""
    in_run = {option_of(action): action.help for action in run_parser()._actions}
    for name, parser in subcommands().items():
        found = {option_of(action): action.help for action in parser._actions}
        assert ("--gke" in found) == (name not in WITHOUT_A_CLUSTER), name
        for option, text in found.items() if name != "rbac" else ():
            assert option in OF_ONE_COMMAND or text in (in_run[option], argparse.SUPPRESS)


@pytest.mark.parametrize("name", sorted(subcommands().keys() - {"run"}))
def test_the_options_of_one_command_are_documented_in_its_section(name: str) -> None:
    page = DOCS.read_text().partition(f"## `gke-sandbox {name}`")[2].partition("\n## ")[0]
    for action in subcommands()[name]._actions:
        if option_of(action) in OF_ONE_COMMAND:
            assert f"`{option_of(action)}" in page


def test_the_exit_codes_in_the_docs_agree_with_the_code() -> None:
    documented = set(re.findall(r"^\| (\d+(?:, \d+)*) \|", DOCS.read_text(), re.MULTILINE))
    numbers = {int(number) for row in documented for number in row.split(", ")}
    ours = {value for value in vars(_exit_codes).values() if type(value) is int}
    assert numbers == ours | {128 + 1, 128 + 2, 128 + 15}


def test_help_and_version_import_neither_httpx_nor_anyio() -> None:
    commands = [["--help"], *([name, "--help"] for name in subcommands()), ["--version"]]
    code = f"""
import sys
from gke_sandbox.cli import main
for arguments in {commands}:
    assert main(arguments) == 0
    imported = {{"anyio", "asyncio", "httpx", "yaml"}} & set(sys.modules)
    assert not imported, f"{{arguments}}: {{imported}}"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"gke-sandbox {__version__}\n"


def test_help_reports_a_full_disk_but_not_a_closed_pipe() -> None:
    with Path("/dev/full").open("wb") as full:
        process = start_real(["run", "--help"], stdout=full)
        assert process.wait(20) == 125
    assert process.stderr is not None
    assert process.stderr.read() == b"gke-sandbox: error: cannot write to stdout: No space left on device\n"
    process = start_real(["--version"])
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""

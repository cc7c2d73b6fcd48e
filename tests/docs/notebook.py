"""Execute the blocks of one document in order, as a reader would: one directory, one Python session.

The cluster is an embedded one that a kubeconfig names. PATH has gke-sandbox, python, pytest and a few tools, and
no kubectl, gcloud or runsc. A command ``pip install`` is skipped, because there is no package index.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import CodeType

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.http_cluster import http_cluster

from .blocks import ROOT, Block, commands

SCRIPT = """
import pathlib, sys
print(pathlib.Path("data.csv").read_text() if pathlib.Path("data.csv").exists() else sys.argv[1:])
pathlib.Path("result.txt").write_text("done")
"""
_TOOLS = ("bash", "cat", "cp", "head", "jq", "ls", "mkdir", "touch")
_PLUGINS = "-p gke_sandbox.pytest_plugin -p anyio"
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Notebook:
    """One directory and one Python session."""

    def __init__(self, directory: Path, portal: BlockingPortal) -> None:
        self.directory = directory
        self.names: dict[str, object] = {"__name__": "__main__"}
        self._portal = portal

    def execute(self, block: Block) -> None:
        """Execute a block. Raises AssertionError if it fails or if its output is not the documented one."""
        try:
            if block.language == "python":
                self._python(block)
            elif block.language == "console":
                self._console(block)
        except Exception as error:
            raise AssertionError(f"{block.place}: {type(error).__name__}: {error}") from error

    def _python(self, block: Block) -> None:
        if re.search(r"^ *(?:async )?def test_", block.text, re.MULTILINE):
            self._test(block)
            return
        code = compile_python(block)
        printed = StringIO()
        with redirect_stdout(printed):
            if code.co_flags & inspect.CO_COROUTINE:
                self._portal.call(eval, code, self.names)
            else:
                exec(code, self.names)
        lines = iter(printed.getvalue().splitlines())
        for expected in re.findall(r"^ *print\(.*\)  # (.*)$", block.text, re.MULTILINE):
            assert any(line == expected for line in lines), f"{expected!r} was not printed: {printed.getvalue()!r}"

    def _test(self, block: Block) -> None:
        """Save a block of tests under the name in its first line, run it, and record its cassettes."""
        named = re.match(r"# (test_\w+\.py)\n", block.text)
        path = self.directory / (named[1] if named else f"test_line_{block.line}.py")
        path.write_text(block.source)
        self._shell(f"pytest --gke-sandbox-record=once {path.name}")

    def _console(self, block: Block) -> None:
        for command in commands(block):
            if command.line.startswith("pip install "):
                continue
            output = self._shell(command.line, check=not command.output)
            if command.output:
                expected = doctest.OutputChecker().check_output(command.output, output, _OPTIONS)
                assert expected, f"$ {command.line}\n{output}"

    def _shell(self, line: str, *, check: bool = True) -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.directory,
            # The options and the plugins of the suite are not for the reader's pytest.
            env={**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"$ {line}\nexit code {done.returncode}\n{done.stdout}"
        return re.sub(r"^gke-sandbox: warning: .*without isolation\n", "", done.stdout, flags=re.MULTILINE)


def compile_python(block: Block) -> CodeType:
    """Compile a block of Python; ``await`` is allowed at its top level, as in a notebook."""
    code = compile(block.source, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(code, CodeType)
    return code


@contextmanager
def _kept_logging() -> Iterator[None]:
    """Restore the configuration of logging, which blocks change."""
    loggers = [logging.getLogger(name) for name in (None, "gke_sandbox", "httpx")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    try:
        yield
    finally:
        for logger, (level, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.handlers[:] = handlers


@contextmanager
def notebook(directory: Path) -> Iterator[Notebook]:
    """Yield a notebook in an empty directory with a script, a data file and a cluster."""
    programs = directory / "bin"
    programs.mkdir()
    for name in _TOOLS:
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    for name, arguments in (
        ("gke-sandbox", "-m gke_sandbox"),
        ("python", ""),
        ("pytest", f"-m pytest -q -c {os.devnull} --rootdir . {_PLUGINS} --ignore gke-sandbox"),
    ):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        script.chmod(0o755)
    work = directory / "work"
    work.mkdir()
    (work / "script.py").write_text(SCRIPT)
    (work / "data.csv").write_text("a,b\n1,2\n")
    (work / "gke-sandbox").symlink_to(ROOT)  # a clone of the repository
    with (
        http_cluster("default", "agent-sandbox") as cluster,
        start_blocking_portal() as portal,
        pytest.MonkeyPatch.context() as patch,
        _kept_logging(),
    ):
        patch.chdir(work)
        patch.syspath_prepend(work)
        patch.setenv("PATH", str(programs))
        patch.setenv("KUBECONFIG", cluster.kubeconfig(directory))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        yield Notebook(work, portal)

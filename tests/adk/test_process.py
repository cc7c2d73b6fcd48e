"""Imports, interpreter exit and fork, each in a new process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.adk.kit import QUIET

pytestmark = QUIET

START = """
import os, sys, threading, time, types, warnings
warnings.simplefilter("ignore")
from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput
from gke_sandbox import Cluster
from gke_sandbox.adk import GkeCodeExecutor
context = types.SimpleNamespace(agent=None, invocation_id="e-1")
executor = GkeCodeExecutor(cluster=Cluster.local("process"))
def run(code):
    return executor.execute_code(context, CodeExecutionInput(code=code))
"""


def fresh(code: str, start: str = START) -> str:
    """Return the output of `code` in a new interpreter."""
    ran = subprocess.run(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_import_adds_few_modules_to_those_of_adks_base_class(capsys: pytest.CaptureFixture[str]) -> None:
    code = """
    import sys, time, warnings
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    from google.adk.code_executors.base_code_executor import BaseCodeExecutor
    between, base = time.perf_counter(), set(sys.modules)
    import gke_sandbox.adk
    ended = time.perf_counter()
    print(f"{between - begun:.3f} {ended - between:.3f}")
    known = {*sys.stdlib_module_names, "pydantic"}  # ADK has imported pydantic, if not each of its modules
    print(*(name for name in sorted(set(sys.modules) - base) if name.split(".")[0] not in known))
    """
    times, modules = fresh(code, start="").splitlines()
    base, ours = times.split()
    with capsys.disabled():
        print(f"\nimport of google-adk's base executor: {base} s; gke_sandbox.adk adds {ours} s")
    assert modules.split() == [
        "gke_sandbox",
        "gke_sandbox._checks",
        "gke_sandbox._exit_codes",
        "gke_sandbox._output_limits",
        "gke_sandbox._setting_names",
        "gke_sandbox._version",
        "gke_sandbox._wire",
        "gke_sandbox._wire.dropped",
        "gke_sandbox._wire.paths",
        "gke_sandbox.adk",
        "gke_sandbox.adk.compat",
        "gke_sandbox.adk.executor",
        "gke_sandbox.adk.fences",
        "gke_sandbox.adk.fields",
        "gke_sandbox.adk.files",
        "gke_sandbox.adk.hints",
        "gke_sandbox.adk.results",
        "gke_sandbox.adk.skills",
        "gke_sandbox.adk.unsupported",
        "gke_sandbox.cluster",
        "gke_sandbox.errors",
        "gke_sandbox.kube",
        "gke_sandbox.kube.config",
        "gke_sandbox.kube.config.types",
        "gke_sandbox.kube.names",
        "gke_sandbox.kube.quantity",
        "gke_sandbox.result",
        "gke_sandbox.settings",
    ]


def test_importing_the_package_does_not_import_adk() -> None:
    code = """
    import sys, gke_sandbox
    print([name for name in sys.modules if name.startswith(("google.adk", "pydantic"))])
    """
    assert fresh(code, start="") == "[]\n"


def test_an_agent_runs_where_kubernetes_and_requests_cannot_be_imported() -> None:
    """Only imports of google-adk are allowed: its runner imports `requests` through authlib at first use."""
    code = """
    import sys, warnings
    warnings.simplefilter("ignore")
    sys.modules["kubernetes"] = None
    try:
        sys.modules["requests"] = None
        import google.adk.code_executors.base_code_executor
    except ImportError:
        del sys.modules["requests"]  # An older google-adk.
        import google.adk.code_executors.base_code_executor
    sys.modules["requests"] = None
    from gke_sandbox import Cluster
    from gke_sandbox.adk import GkeCodeExecutor
    executor = GkeCodeExecutor(cluster=Cluster.local("process"))
    del sys.modules["requests"]
    from tests.adk.kit import agent, block, converse, execute
    converse(agent(None, "Hello."))
    sys.modules["requests"] = None
    print(execute(executor, "print(6 * 7)").stdout)
    print(converse(agent(executor, block("print(6 * 7)"), "It is 42.")).last)
    executor.close()
    """
    assert fresh(code, start="") == "42\n\nIt is 42.\n"


def test_the_import_without_adk_raises_an_error_with_the_extra_to_install() -> None:
    code = """
    import sys
    sys.modules["google.adk"] = None
    try:
        import gke_sandbox.adk
    except ModuleNotFoundError as error:
        print(error)
    """
    assert fresh(code, start="") == "gke_sandbox.adk requires google-adk: pip install 'gke-sandbox[adk]'\n"


def test_an_executor_that_is_never_closed_leaves_no_processes(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    sleeps = f"import os, time\nopen({str(told)!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
    code = f"""
    print(run("print(1)").stdout)
    threading.Thread(target=run, args=({sleeps!r},), daemon=True).start()
    while not os.path.exists({str(told)!r}) or not os.path.getsize({str(told)!r}):
        time.sleep(0.01)
    """
    assert fresh(code) == "1\n\n"
    pid, deadline = int(told.read_text()), time.monotonic() + 10
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_executor_with_warm_pods_that_is_never_closed_leaves_none(tmp_path: Path) -> None:
    code = f"""
    executor = GkeCodeExecutor(
        cluster=Cluster.local("process"), warm=2, settings={{"env": {{"MARK": {str(tmp_path)!r}}}}}
    ).open()
    pool = executor._sandbox()._open().sandbox._opened().pool
    while pool.ready < 2:
        time.sleep(0.01)
    print(run("print(1)").stdout, end="")
    """
    assert fresh(code) == "1\n"
    deadline = time.monotonic() + 10
    while marked := marked_processes(str(tmp_path)):
        assert time.monotonic() < deadline, marked
        time.sleep(0.01)


def marked_processes(mark: str) -> list[str]:
    """Return the processes with this value in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # It has ended.
            continue
    return found


def runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_forked_worker_has_a_separate_sandbox() -> None:
    code = """
    print(run("print('parent')").stdout, end="", flush=True)
    pid = os.fork()
    if pid == 0:
        print(run("print('child')").stdout, end="", flush=True)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(run("print('parent again')").stdout, end="")
    """
    assert fresh(code) == "parent\nchild\nparent again\n"

"""Sandbox: threads, Ctrl-C, interpreter exit and fork. Tests of whole processes start a new process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import httpx
import pytest

from gke_sandbox import Cluster, ConfigError, ExecutionFinished, OutputChunk, Sandbox, SpecError
from gke_sandbox._loop_thread import _Task
from gke_sandbox.errors import CassetteError, NotFound, SandboxClosed
from gke_sandbox.local import LocalTransport, ScriptedRuntime, choose_runtime
from gke_sandbox.local.faults import Delay, Fault, FaultPlan, Forbid, Match

from .http_cluster import HttpCluster, http_cluster
from .pods import out, program

ROOT = Path(__file__).parent.parent
LOCAL = Cluster.local("process")


def loops() -> list[threading.Thread]:
    """Return the threads of open Sandboxes."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("gke-sandbox")]


def test_a_sandbox_runs_a_program_in_a_with_block() -> None:
    with Sandbox(LOCAL) as sandbox:
        assert sandbox.run("print(6 * 7)").stdout == "42\n"
        assert sandbox.namespace == "default"
        assert sandbox.leftovers == []


def test_the_first_run_starts_a_thread_and_close_joins_it() -> None:
    sandbox = Sandbox(LOCAL)
    assert loops() == []
    assert sandbox.run("print(1)").stdout == "1\n"
    assert len(loops()) == 1
    sandbox.close()
    assert loops() == []
    sandbox.close()
    with pytest.raises(SandboxClosed) as caught:
        sandbox.run("print(1)")
    assert caught.value.may_have_run is False


def test_invalid_settings_are_refused_when_the_sandbox_is_created() -> None:
    with pytest.raises(SpecError, match="cpu_limit"):
        Sandbox(LOCAL, cpu_limit="abc")
    with pytest.raises(SpecError, match="timeuot"):
        Sandbox(LOCAL, timeuot=3)


def test_many_threads_share_one_sandbox() -> None:
    with Sandbox(LOCAL) as sandbox, ThreadPoolExecutor(20) as threads:
        results = list(threads.map(lambda n: sandbox.run(f"print({n})").stdout, range(20)))
    assert results == [f"{n}\n" for n in range(20)]


def test_map_returns_results_in_order() -> None:
    with Sandbox(LOCAL) as sandbox:
        results = sandbox.map([f"print({n})" for n in range(6)], max_concurrency=3)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(6)]


def test_a_stream_is_an_iterator_of_events() -> None:
    with Sandbox(LOCAL) as sandbox, sandbox.stream("print('a')") as events:
        seen = list(events)
    assert b"".join(event.data for event in seen if isinstance(event, OutputChunk)) == b"a\n"
    assert isinstance(seen[-1], ExecutionFinished)


def test_leaving_the_block_of_a_stream_cancels_the_run() -> None:
    with Sandbox(LOCAL) as sandbox:
        with sandbox.stream("import sys, time\nsys.stdout.write('a')\ntime.sleep(60)") as events:
            for event in events:
                if isinstance(event, OutputChunk):
                    break
        assert list(events) == []


def test_close_in_another_thread_cancels_running_programs() -> None:
    errors: list[BaseException] = []
    sandbox = Sandbox(LOCAL)
    started = threading.Event()

    def run() -> None:
        try:
            with sandbox.stream("import sys, time\nsys.stdout.write('a')\ntime.sleep(60)") as events:
                for event in events:
                    if isinstance(event, OutputChunk):
                        started.set()
        except SandboxClosed as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(20)
    sandbox.close()
    thread.join(20)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_a_dropped_sandbox_ends_its_thread() -> None:
    sandbox = Sandbox(LOCAL)
    sandbox.run("print(1)")
    (thread,) = loops()
    del sandbox
    thread.join(20)
    assert not thread.is_alive()


def test_leftovers_are_available_after_close() -> None:
    never = Fault(Forbid(), Match("delete", "jobs"), times=None)
    transport = LocalTransport(choose_runtime("process"), faults=FaultPlan(never))
    with Sandbox(Cluster.transport(transport)) as sandbox:
        result = sandbox.run("pass")
    assert sandbox.leftovers == [result.job]


def test_reading_a_stream_after_close_raises_sandbox_closed() -> None:
    sandbox = Sandbox(LOCAL)
    events = sandbox.stream("import time; time.sleep(60)")
    next(events)
    sandbox.close()
    with pytest.raises(SandboxClosed):
        next(events)
    events.close()


def test_threads_that_run_programs_during_close_get_a_result_or_sandbox_closed() -> None:
    errors: list[BaseException] = []

    def run(sandbox: Sandbox) -> None:
        try:
            while True:
                sandbox.run("pass")
        except BaseException as error:  # noqa: BLE001 - its type is checked below
            errors.append(error)

    for attempt in range(15):
        sandbox = Sandbox(LOCAL)
        assert sandbox.namespace == "default"
        threads = [threading.Thread(target=run, args=(sandbox,), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        threads[0].join(attempt / 500)
        sandbox.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert {type(error) for error in errors} == {SandboxClosed}


class BrokenWatch(httpx.AsyncBaseTransport):
    """A transport with a bug: its watch raises RuntimeError."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/pods"):
            raise RuntimeError("a bug")
        status = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
        return httpx.Response(404, json=status, request=request)


def test_after_an_error_in_the_background_every_run_raises_an_error() -> None:
    with Sandbox(Cluster.transport(BrokenWatch())) as sandbox:
        error: BaseException | None = None
        while not isinstance(error, SandboxClosed):
            with pytest.raises((SandboxClosed, NotFound)) as caught:
                sandbox.run("pass")
            error = caught.value
        for _ in range(3):
            with pytest.raises(SandboxClosed):
                sandbox.run("pass")
    assert loops() == []


def test_a_sandbox_that_is_garbage_collected_in_its_own_thread_ends_the_thread() -> None:
    sandbox = Sandbox(LOCAL)
    sandbox.run("pass")
    (thread,) = loops()
    opened = sandbox._loop_thread
    assert opened is not None
    portal, opened.cycle = opened.portal, opened  # type: ignore[attr-defined]
    gc.disable()
    try:
        del sandbox, opened
        portal.call(gc.collect)
    finally:
        gc.enable()
    thread.join(20)
    assert not thread.is_alive()


# -- in new processes ----------------------------------------------------------------------------

PRELUDE = """
import atexit, logging, os, signal, sys, threading, time
from gke_sandbox import *
from gke_sandbox.errors import *
from gke_sandbox.local import LocalTransport, ScriptedRuntime, choose_runtime
logging.basicConfig(level=logging.WARNING, format="%(message)s")
transport = LocalTransport(choose_runtime("process"))
after_exit_handler = []
atexit.register(lambda: [call() for call in after_exit_handler])
sandbox = Sandbox(Cluster.transport(transport))
def left():
    return [job["metadata"]["name"] for job in transport.objects("jobs")]
SLEEPS = "import time, os; os.write(1, b'pid %d ' % os.getpid()); time.sleep(60)"
"""


def process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )


def output(code: str) -> str:
    running = process(code)
    out, error = running.communicate(timeout=30)
    assert running.returncode == 0, error
    assert "Traceback" not in error, error
    return out


def test_ctrl_c_during_a_run_is_raised_after_the_job_is_deleted() -> None:
    code = """
    sandbox.namespace  # opens it
    def announce():
        while not transport.objects("pods") or not any("log" in r.path for r in list(transport.requests)):
            time.sleep(0.01)
        print("running", flush=True)
    threading.Thread(target=announce, daemon=True).start()
    try:
        sandbox.run(SLEEPS)
    except KeyboardInterrupt:
        print("interrupted", left(), sandbox.leftovers, flush=True)
    sandbox.close()
    """
    running = process(code)
    assert running.stdout is not None
    assert running.stdout.readline() == "running\n"
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=30)
    assert out == "interrupted [] []\n", error
    assert running.returncode == 0, error


def test_ctrl_c_that_the_kernel_delivers_to_another_thread_is_handled() -> None:
    """The kernel may deliver a signal to any thread, and one just before a wait does not end the wait."""
    code = """
    sandbox.namespace  # opens it
    def interrupt():
        while not transport.objects("pods"):
            time.sleep(0.01)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        sandbox.run(SLEEPS)
    except KeyboardInterrupt:
        print("interrupted", left(), flush=True)
    sandbox.close()
    """
    assert output(code) == "interrupted []\n"


def test_a_second_ctrl_c_stops_waiting_and_logs_the_remaining_job() -> None:
    code = """
    from gke_sandbox.local.faults import *
    transport = LocalTransport(choose_runtime("process"), faults=FaultPlan(
        Fault(Delay(60), Match("delete", "jobs"), times=None)))
    sandbox = Sandbox(Cluster.transport(transport))
    sandbox.namespace  # opens it
    def announce():
        while not transport.objects("pods"):
            time.sleep(0.01)
        print("running", flush=True)
        while not any(request.method == "DELETE" for request in transport.requests):
            time.sleep(0.01)
        print("deleting", flush=True)
    threading.Thread(target=announce, daemon=True).start()
    try:
        sandbox.run(SLEEPS)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    os._exit(0)
    """
    running = process(code)
    assert running.stdout is not None
    assert running.stdout.readline() == "running\n"
    running.send_signal(signal.SIGINT)
    assert running.stdout.readline() == "deleting\n"
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=30)
    assert out == "interrupted\n", error
    assert "Job gke-sandbox-" in error


def test_interpreter_exit_without_close_kills_running_programs_and_does_not_hang() -> None:
    code = """
    pids = []
    def run():
        with sandbox.stream(SLEEPS) as events:
            for event in events:
                if isinstance(event, OutputChunk):
                    print(event.data.decode(), end="", flush=True)
                    ready.set()
    ready = threading.Event()
    threading.Thread(target=run, daemon=True).start()
    ready.wait(20)
    """
    out = output(code)
    # The process was killed before the interpreter ended.
    pid, deadline = int(out.split()[1]), time.monotonic() + 10
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_daemon_thread_that_reads_a_stream_at_interpreter_exit_gets_no_error() -> None:
    code = """
    has_event, exiting = threading.Event(), threading.Event()
    def run():
        with sandbox.stream("pass") as events:
            next(events)
            has_event.set()
            exiting.wait(20)
            list(events)
    reader = threading.Thread(target=run, daemon=True)
    reader.start()
    has_event.wait(20)
    while sandbox.jobs:
        time.sleep(0.01)
    def check():
        exiting.set()
        reader.join(0.2)
        print(reader.is_alive())
    after_exit_handler.append(check)
    """
    assert output(code) == "True\n"


def runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_interpreter_exit_after_runs_prints_nothing() -> None:
    assert output("print(sandbox.run('print(1)').stdout, end='')") == "1\n"


def test_a_forked_child_has_a_new_session_and_does_not_use_the_jobs_of_its_parent() -> None:
    code = """
    local = Sandbox(Cluster.local("process"))
    print(local.run("print('parent')").stdout, end="", flush=True)
    session = local._loop_thread.sandbox.session
    pid = os.fork()
    if pid == 0:
        print(local.run("print('child')").stdout, end="", flush=True)
        print(local._loop_thread.sandbox.session != session, flush=True)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(local.run("print('parent again')").stdout, end="", flush=True)
    local.close()
    """
    assert output(code) == "parent\nchild\nTrue\nparent again\n"


def test_ctrl_c_during_map_does_not_wait_for_programs_that_have_not_started() -> None:
    code = """
    sandbox.namespace  # opens it
    def interrupt():
        while len(transport.objects("pods")) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    started = time.monotonic()
    try:
        sandbox.map([SLEEPS] * 6, max_concurrency=2)
    except KeyboardInterrupt:
        print(left(), time.monotonic() - started < 8)
    sandbox.close()
    """
    assert output(code) == "[] True\n"


@pytest.mark.parametrize("before", [True, False])
def test_an_interrupt_cancels_a_call_on_the_loop_even_before_its_future_exists(before: bool) -> None:
    """Ctrl-C can be raised while the call is submitted to the loop, which has already started it."""
    started: list[str] = []

    async def call(name: str) -> None:
        started.append(name)
        await anyio.sleep_forever()

    async def main() -> None:
        task = _Task(call, ["run"])
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                if before:
                    task.cancel()
                group.start_soon(task.run)
                await anyio.wait_all_tasks_blocked()
                task.cancel()
        assert task.ended

    anyio.run(main)
    assert started == ["run"]


def test_ctrl_c_while_a_sandbox_opens_leaves_no_thread() -> None:
    code = """
    for n in range(30):
        sandbox = Sandbox(Cluster.local("process"))
        def interrupt(after=n / 3000):
            time.sleep(after)
            os.kill(os.getpid(), signal.SIGINT)
        timer = threading.Thread(target=interrupt)
        try:
            timer.start()
            sandbox.namespace
            time.sleep(1)
        except KeyboardInterrupt:
            timer.join()
        sandbox.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(t.name.startswith("gke-sandbox") for t in threading.enumerate()):
        time.sleep(0.01)
    print([t.name for t in threading.enumerate() if t.name.startswith("gke-sandbox")])
    """
    assert output(code) == "[]\n"


def test_a_signal_handler_can_close_a_sandbox_that_is_being_opened() -> None:
    code = """
    opening = Sandbox(Cluster.local("process"))
    signal.signal(signal.SIGTERM, lambda *_: opening.close())
    class Slow(Cluster):
        def _connect(self, namespace=None):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
            return Cluster.local("process")._connect(namespace)
    opening._new_sandbox = lambda: AsyncSandbox(Slow())
    try:
        opening.run("pass")
    except SandboxClosed as error:
        print("closed")
    """
    assert output(code) == "closed\n"


def emptied(cluster: HttpCluster) -> bool:
    """Whether the cluster is empty within ten seconds."""
    deadline = time.monotonic() + 10
    while cluster.transport.leftovers() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not cluster.transport.leftovers()


def test_the_job_of_a_sandbox_dropped_right_before_interpreter_exit_is_deleted(tmp_path: Path) -> None:
    with http_cluster() as cluster:
        config = cluster.kubeconfig(tmp_path)
        assert output(f"print(Sandbox(Cluster.kubeconfig({config!r})).run('print(1)').stdout, end='')") == "1\n"
        assert emptied(cluster)


def test_after_ctrl_c_in_close_the_job_is_deleted_at_interpreter_exit(tmp_path: Path) -> None:
    with http_cluster() as cluster:
        # The deletion on the loop is delayed, so only the deletion at exit can be in time.
        cluster.transport.faults.add(Fault(Delay(60), Match("delete", "jobs")))
        code = f"""
        sandbox = Sandbox(Cluster.kubeconfig({cluster.kubeconfig(tmp_path)!r}))
        sandbox.run("pass")
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            sandbox.close()
        except KeyboardInterrupt:
            print("interrupted")
        """
        assert output(code) == "interrupted\n"
        assert emptied(cluster)


def test_a_forked_child_does_not_use_the_stream_of_its_parent() -> None:
    code = """
    with sandbox, sandbox.stream("print(1)") as events:
        next(events)
        pid = os.fork()
        if pid == 0:
            try:
                next(events)
            except SandboxClosed:
                sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(type(list(events)[-1]).__name__)
    """
    assert output(code) == "7\nExecutionFinished\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_deletes_its_jobs_when_it_ends(method: str, tmp_path: Path) -> None:
    with http_cluster() as cluster:
        script = tmp_path / "script.py"
        script.write_text(
            "import multiprocessing, sys\n"
            "from gke_sandbox import *\n"
            "def work(config):\n"
            "    for event in Sandbox(Cluster.kubeconfig(config)).stream('import time; time.sleep(60)'):\n"
            "        if isinstance(event, PhaseChanged) and event.phase == 'started':\n"
            "            return\n"
            "if __name__ == '__main__':\n"
            "    Sandbox(Cluster.kubeconfig(sys.argv[1])).run('pass')\n"
            "    child = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=sys.argv[1:2])\n"
            "    child.start(); child.join(); print(child.exitcode)\n"
        )
        ran = subprocess.run(
            [sys.executable, str(script), cluster.kubeconfig(tmp_path), method],
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert (ran.stdout, ran.stderr) == ("0\n", "")
        assert emptied(cluster)


def test_a_missing_kubeconfig_raises_one_error_without_a_group(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        Sandbox(Cluster.kubeconfig(str(tmp_path / "none"))).run("x")


def test_an_error_during_close_is_raised_by_the_first_close_only(tmp_path: Path) -> None:
    cluster = Cluster.transport(LocalTransport(ScriptedRuntime(program(out("fine")))))
    sandbox = Sandbox(Cluster.record(tmp_path / "c.yaml", cluster))
    assert sandbox.run("password = 'https://me:hunter2@example.org/'").stdout == "fine"
    with pytest.raises(CassetteError, match="a password in an address"):
        sandbox.close()
    sandbox.close()


def test_open_looks_up_the_cluster_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        Sandbox(Cluster.kubeconfig(tmp_path / "missing")).open()
    sandbox = Sandbox(Cluster.local("process")).open()
    assert sandbox.settings.namespace == "default"
    sandbox.close()

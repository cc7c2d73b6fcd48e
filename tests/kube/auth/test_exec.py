"""When an exec plugin runs, how its credentials are shared, and when it is killed. With real programs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.streams.tls
import httpx
import pytest

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.auth.exec import POLL_INTERVAL, ExecAuth
from gke_sandbox.kube.config.types import ClusterConfig

from .plugins import CLUSTER, TOKEN, Plugin, Server, ask, ask_async, auth, write_plugin

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def gone(pid: int) -> bool:
    """Return whether the process ends within a few seconds. A zombie has ended, too."""
    for _ in range(500):
        try:
            if f"{pid} (" in (text := Path(f"/proc/{pid}/stat").read_text()) and ") Z" in text:
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("asking", ["threads", "tasks"])
def test_sync_and_async_share_one_set_of_credentials(tmp_path: Path, asking: str) -> None:
    plugin, server = write_plugin(tmp_path, TOKEN), Server()
    if asking == "threads":
        assert ask(auth(plugin), server) == 200
        assert anyio.run(ask_async, auth(plugin), server) == 200
    else:
        assert anyio.run(ask_async, auth(plugin), server, backend="trio") == 200
        assert ask(auth(plugin), server) == 200
    assert server.sent == ["Bearer t1", "Bearer t1"]
    assert len(plugin.runs) == 1


SLOW = f"time.sleep(0.15)\n{TOKEN}"


async def test_waiting_tasks_and_threads_share_one_run(tmp_path: Path) -> None:
    plugin, server = write_plugin(tmp_path, SLOW), Server()
    with ThreadPoolExecutor(20) as pool:
        threads = [pool.submit(ask, auth(plugin), server) for _ in range(20)]
        async with anyio.create_task_group() as group:
            for _ in range(80):
                group.start_soon(ask_async, auth(plugin), server)
    assert {thread.result() for thread in threads} == {200}
    assert server.sent == ["Bearer t1"] * 100
    assert len(plugin.runs) == 1


async def test_all_waiting_tasks_get_the_error_of_one_failed_run(tmp_path: Path) -> None:
    plugin, errors = write_plugin(tmp_path, "time.sleep(0.1); sys.exit(7)"), []

    async def fail() -> None:
        with pytest.raises(ConfigError, match="exited with code 7") as caught:
            await ask_async(auth(plugin), Server())
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(fail)
    assert len({id(error) for error in errors}) == 10
    assert len(plugin.runs) == 1


async def test_a_running_plugin_does_not_block_the_event_loop(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    plugin = write_plugin(tmp_path, f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n{TOKEN}")
    async with anyio.create_task_group() as group:
        group.start_soon(ask_async, auth(plugin), Server())
        # The plugin does not end before this task has run.
        await anyio.lowlevel.checkpoint()
        gate.touch()


OTHERS: list[tuple[str, Callable[[Plugin], ExecAuth], int]] = [
    ("same", auth, 1),
    ("another source", lambda p: auth(p, fields={"source": "elsewhere"}), 1),
    ("other arguments", lambda p: auth(p, fields={"args": ("a",)}), 2),
    ("other environment", lambda p: auth(p, fields={"env": (("A", "b"),)}), 2),
    ("another version", lambda p: auth(p, fields={"provide_cluster_info": True}), 2),
    ("another cluster", lambda p: auth(p, ClusterConfig(server="https://other")), 2),
    ("another CA", lambda p: auth(p, ClusterConfig(server=CLUSTER.server, ca_data=b"x")), 2),
    ("another extension", lambda p: auth(p, extension={"a": 1}), 2),
]


@pytest.mark.parametrize(("other", "runs"), [row[1:] for row in OTHERS], ids=[row[0] for row in OTHERS])
def test_credentials_are_shared_by_plugin_and_cluster(
    tmp_path: Path, other: Callable[[Plugin], ExecAuth], runs: int
) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    ask(auth(plugin), Server())
    ask(other(plugin), Server())
    assert len(plugin.runs) == runs


EXPIRING = "give({'token': f't{n}', 'expirationTimestamp': f'1970-01-01T00:{10 * n}:00Z'})"


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [
        ([0, 0], ["t1", "t1"]),
        ([0, 480], ["t1", "t1"]),
        ([0, 600], ["t1", "t1"]),
        ([0, 600.5], ["t1", "t2"]),
        ([0, 601, 1200, 1201], ["t1", "t2", "t2", "t3"]),
    ],
)
def test_credentials_are_used_until_they_expire(tmp_path: Path, seconds: list[float], sent: list[str]) -> None:
    plugin, server, clock = write_plugin(tmp_path, EXPIRING), Server(), [0.0]
    who = auth(plugin, now=lambda: clock[0])
    for clock[0] in seconds:
        ask(who, server)
    assert server.sent == [f"Bearer {token}" for token in sent]
    assert len(plugin.runs) == len(set(sent))


def test_the_plugin_does_not_run_before_the_first_request(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    who = auth(plugin)
    assert (who.client_certificate(), plugin.runs) == (None, [])


@pytest.mark.parametrize("flow", ["sync", "async"])
@pytest.mark.parametrize(
    ("refused", "status", "sent"),
    [
        (["t1"], 200, ["Bearer t1", "Bearer t2"]),
        (["t1", "t2"], 401, ["Bearer t1", "Bearer t2"]),
    ],
)
def test_after_a_401_the_plugin_runs_again_and_the_request_is_retried_once(
    tmp_path: Path, flow: str, refused: list[str], status: int, sent: list[str]
) -> None:
    plugin, server = write_plugin(tmp_path, TOKEN), Server(*refused)
    who = auth(plugin)
    assert (ask(who, server) if flow == "sync" else anyio.run(ask_async, who, server)) == status
    assert server.sent == sent
    assert len(plugin.runs) == 2


def test_after_a_401_newer_credentials_from_another_request_are_used(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    first, second = (auth(plugin).sync_auth_flow(httpx.Request("GET", "https://cluster:6443/")) for _ in range(2))
    assert {next(first).headers["Authorization"], next(second).headers["Authorization"]} == {"Bearer t1"}
    assert first.send(httpx.Response(401)).headers["Authorization"] == "Bearer t2"
    assert second.send(httpx.Response(401)).headers["Authorization"] == "Bearer t2"
    assert len(plugin.runs) == 2


@pytest.mark.parametrize("status", [200, 403, 500])
def test_other_responses_do_not_run_the_plugin_again(tmp_path: Path, status: int) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    flow = auth(plugin).sync_auth_flow(httpx.Request("GET", "https://cluster:6443/"))
    next(flow)
    with pytest.raises(StopIteration):
        flow.send(httpx.Response(status))
    assert len(plugin.runs) == 1


def test_over_plain_http_the_plugin_does_not_run_and_no_token_is_sent(tmp_path: Path) -> None:
    plugin, server = write_plugin(tmp_path, TOKEN), Server()
    ask(auth(plugin), server, "http://cluster/")
    anyio.run(ask_async, auth(plugin), server, "http://cluster/")
    assert (server.sent, plugin.runs) == ([None, None], [])


def test_a_request_with_an_authorization_header_does_not_run_the_plugin(tmp_path: Path) -> None:
    plugin, server = write_plugin(tmp_path, TOKEN), Server("mine")
    assert ask(auth(plugin), server, Authorization="Bearer mine") == 401
    assert (server.sent, plugin.runs) == (["Bearer mine"], [])


# Tests that affect the whole process run in a separate one.
PRELUDE = """
import os, sys
import httpx
from pathlib import Path
from tests.kube.auth.plugins import Plugin, Server, ask, auth
plugin = Plugin(Path({path!r}), Path({log!r}))
"""


def alone(plugin: Plugin, code: str, **more: Any) -> subprocess.Popen[str]:
    """Run `code` in a separate process that has a variable `plugin`."""
    text = PRELUDE.format(path=str(plugin.path), log=str(plugin.log)) + code
    command = [sys.executable, "-c", text]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_a_forked_child_runs_the_plugin_itself(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    code = """
who, server = auth(plugin), Server()
ask(who, server)
if os.fork() == 0:
    sys.exit(ask(who, server) != 200)
print(os.wait()[1], ask(who, server))
"""
    with alone(plugin, code) as process:
        assert process.communicate() == ("0 200\n", "")
    assert len(plugin.runs) == 2


def at_a_terminal(plugin: Plugin, mode: str, typed: bytes) -> tuple[str, str]:
    """Run a request in a process whose standard input is a terminal. Return its output."""
    code = f"""
server = Server()
ask(auth(plugin, fields={{"interactive_mode": {mode!r}}}), server)
print(server.sent)
"""
    ours, theirs = os.openpty()
    with open(ours, "wb", buffering=0) as terminal, alone(plugin, code, stdin=theirs) as process:
        os.close(theirs)
        terminal.write(typed)
        return process.communicate()


@pytest.mark.parametrize("mode", ["IfAvailable", "Always"])
def test_an_interactive_plugin_can_read_from_the_terminal(tmp_path: Path, mode: str) -> None:
    plugin = write_plugin(
        tmp_path, "print('Password: ', end='', file=sys.stderr, flush=True)\ngive({'token': input()})"
    )
    assert at_a_terminal(plugin, mode, b"t0ken\n") == ("['Bearer t0ken']\n", "Password: ")
    record: Any = plugin.runs[0]
    assert record["stdin"] is True
    assert json.loads(record["environ"]["KUBERNETES_EXEC_INFO"])["spec"] == {"interactive": True}


def test_a_plugin_with_interactive_mode_never_cannot_read_from_the_terminal(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    assert at_a_terminal(plugin, "Never", b"") == ("['Bearer t1']\n", "")
    record: Any = plugin.runs[0]
    assert record["stdin"] is False
    assert json.loads(record["environ"]["KUBERNETES_EXEC_INFO"])["spec"] == {"interactive": False}


@linux
def test_ctrl_c_kills_a_hanging_plugin(tmp_path: Path) -> None:
    # The pause is for the client, which must have returned from starting the process.
    announce = "time.sleep(0.3); print('hanging', file=sys.stderr, flush=True); "
    plugin = write_plugin(tmp_path, announce + "time.sleep(600)")
    with alone(plugin, "ask(auth(plugin), Server())") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "hanging\n"
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate()[1]
    assert gone(int(str(plugin.runs[0]["pid"])))


# Plugins that hang

CHILD = "import subprocess\nsubprocess.Popen([sys.executable, '-IS', '-c', {program!r}])\n"


@linux
def test_a_hanging_plugin_is_killed_with_its_child_processes(tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    program = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    body = CHILD.format(program=program) + f"while not os.path.exists({str(pid_file)!r}): time.sleep(0.01)\n"
    plugin = write_plugin(tmp_path, body + "print('asking', file=sys.stderr, flush=True); time.sleep(600)")
    with pytest.raises(ConfigError, match="did not end within 60 s"):
        ask(auth(plugin, clock=lambda: 60.0 * bool(pid_file.exists() and pid_file.read_text())), Server())
    assert gone(int(pid_file.read_text()))


@linux
def test_child_processes_of_a_finished_plugin_are_not_waited_for(tmp_path: Path) -> None:
    body = CHILD.format(program="import time; time.sleep(20)") + TOKEN
    # Ten times faster than real time, so that the plugin has 6 s.
    clock = itertools.count(0.0, 10 * POLL_INTERVAL).__next__
    assert ask(auth(write_plugin(tmp_path, body), clock=clock), Server()) == 200


@linux
async def test_the_plugin_is_killed_when_the_last_waiting_task_is_cancelled(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "time.sleep(600) if n == 1 else give({'token': 't'})")
    who = auth(plugin)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask_async, who, Server())
        while not plugin.runs:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert gone(int(str(plugin.runs[0]["pid"])))
    assert await ask_async(who, Server()) == 200


async def test_cancelling_one_task_does_not_affect_the_others(tmp_path: Path) -> None:
    plugin, server = write_plugin(tmp_path, SLOW), Server()
    who = auth(plugin)
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.05):
            group.start_soon(ask_async, who, server)
            await ask_async(who, Server())
    assert server.sent == ["Bearer t1"]
    assert len(plugin.runs) == 1


def test_a_thread_gets_credentials_when_the_event_loop_that_started_the_run_ends(tmp_path: Path) -> None:
    """The loop is cancelled, but a thread that waits for the same run still gets its credentials."""
    plugin, server = write_plugin(tmp_path, SLOW), Server()
    who = auth(plugin)

    async def given_up() -> None:
        with anyio.move_on_after(0.1):
            await ask_async(who, Server())

    thread = threading.Thread(target=anyio.run, args=(given_up,))
    thread.start()
    assert ask(who, server) == 200
    thread.join()
    assert len(plugin.runs) == 1

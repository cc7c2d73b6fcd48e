"""Containers under gVisor: the tests for all runtimes, and the isolation of the sandbox."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.bundle import USER_BASE, VENV, Interpreter, UnmountablePath
from gke_sandbox.local.runtimes.gvisor import GVisorRuntime, GVisorUnavailable

from .containers import container, python, run, running
from .gvisor_fixtures import *  # noqa: F403
from .gvisor_fixtures import sandboxes
from .runtime_behaviours import *  # noqa: F403

pytestmark = pytest.mark.anyio


async def test_the_program_runs_as_an_ordinary_user_without_other_processes(runtime: GVisorRuntime) -> None:
    code = """
import os, socket
print(os.getuid(), os.getgid(), os.getpid(), socket.gethostname(), os.getcwd())
status = open("/proc/self/status").read()
print([line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapBnd", "CapPrm"))])
print(sorted(name for name in os.listdir("/proc") if name.isdigit()))
"""
    _, output = await run(runtime, python(code))
    assert output.decode().splitlines() == ["1001 1001 1 job-x7x2p /", str(["0" * 16] * 3), "['1']"]


async def test_only_the_loopback_network_exists(runtime: GVisorRuntime) -> None:
    code = """
import errno, socket
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(server.getsockname()): print("loopback")
try: socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error: print(error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH))
print([name for _, name in socket.if_nameindex()])
"""
    _, output = await run(runtime, python(code))
    assert output == b"loopback\nTrue\n['lo']\n"


async def test_only_the_interpreter_and_usr_of_this_machine_are_visible(
    runtime: GVisorRuntime, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of this machine")
    code = """
import os, sys
known = ("/proc", "/sys", "/dev", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", *sys.argv[2:])
def walk(folder):
    for entry in os.scandir(folder):
        if entry.path not in known:
            if entry.is_dir(follow_symlinks=False):
                walk(entry.path)
            else:
                print(entry.path)
walk("/")
print("secret" if os.path.exists(sys.argv[1]) else "")
"""
    shown = [*Interpreter.running().prefixes, VENV, USER_BASE]
    _, output = await run(runtime, container("python3", "-u", "-c", code, str(secret), *shown))
    *found, secrets = output.decode().split("\n")[:-1]
    names = ("group", "hostname", "hosts", "ld.so.cache", "nsswitch.conf", "passwd")
    assert set(found) <= {f"/etc/{name}" for name in names}
    assert secrets == ""


async def test_only_scratch_space_can_be_written(runtime: GVisorRuntime) -> None:
    code = """
import os
for folder in ("/", "/etc", "/usr", "/root", "/app", "/tmp", "/scratch", "/dev/shm"):
    try:
        open(folder + "/x", "w").close()
    except OSError as error:
        print(folder, error.errno in (13, 30))
    else:
        print(folder, "written")
"""
    _, output = await run(runtime, python(code, files={"/app/runner": b""}, scratch={"/scratch": None}))
    lines = dict(line.split() for line in output.decode().splitlines())
    assert lines == {
        **dict.fromkeys(("/", "/etc", "/usr", "/root", "/app"), "True"),
        **dict.fromkeys(("/tmp", "/scratch", "/dev/shm"), "written"),
    }


async def test_scratch_space_has_the_size_of_its_limit(runtime: GVisorRuntime) -> None:
    code = """
written = 0
try:
    with open("/scratch/x", "wb", buffering=0) as file:
        while True:
            written += file.write(bytes(1 << 16))
except OSError as error:
    print(error.strerror, written)
"""
    _, output = await run(runtime, python(code, scratch={"/scratch": 1 << 20}))
    assert output == b"No space left on device 1048576\n"


async def test_scratch_space_does_not_count_as_memory(runtime: GVisorRuntime) -> None:
    code = "open('/tmp/x', 'wb').write(bytes(100 << 20)); print(sum(range(3_000_000)) > 0)"
    ended, output = await run(runtime, python(code, scratch={"/tmp": 128 << 20}, memory_limit=120 << 20))
    assert (ended.reason, output) == ("Completed", b"True\n")


async def test_a_hanging_sandbox_is_killed(runtime: GVisorRuntime, tried: tuple[GVisorRuntime, Path]) -> None:
    """All processes of runsc are stopped and do not react to SIGTERM."""
    async with running(runtime, python("print('ready')\nimport signal; signal.pause()")) as (started, lines):
        await lines.next()
        for pid in sandboxes(tried[1]):
            os.kill(pid, signal.SIGSTOP)
        await started.stop(0.2)
        assert await started.wait() == ContainerExit(137, "Error")


async def test_containers_can_be_started_after_kill_all(
    runtime: GVisorRuntime, tried: tuple[GVisorRuntime, Path]
) -> None:
    async with running(runtime, python("print('ready')\nimport signal; signal.pause()")) as (started, lines):
        await lines.next()
        runtime.kill_all()
        assert (sandboxes(tried[1]), os.listdir(tried[1])) == ({}, [])
        assert await started.wait() == ContainerExit(137, "Error")
    assert (await run(runtime, python("print(1)")))[1] == b"1\n"


async def test_it_runs_on_asyncio(runtime: GVisorRuntime) -> None:
    """In a separate event loop in a thread, while trio runs this one."""

    async def main() -> tuple[ContainerExit, bytes]:
        return await run(runtime, python("print(1)"))

    ended = await anyio.to_thread.run_sync(lambda: anyio.run(main, backend="asyncio"))
    assert ended == (ContainerExit(0, "Completed"), b"1\n")


def test_an_interpreter_whose_prefix_contains_the_home_directory_is_not_mounted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", os.path.join(os.path.realpath(sys.base_prefix), "somebody"))
    with pytest.raises(UnmountablePath, match="contains the home directory"):
        Interpreter.running()


def test_without_runsc_the_reason_is_that_it_is_not_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GVisorUnavailable, match="runsc is not on PATH"):
        GVisorRuntime()


def test_a_broken_runsc_reports_its_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runsc = tmp_path / "runsc"
    runsc.write_text("#!/bin/sh\necho creating sandbox: operation not permitted >&2\nexit 128\n")
    runsc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GVisorUnavailable, match="with platform ptrace: creating sandbox: operation not permitted"):
        GVisorRuntime()


async def test_a_full_stdout_blocks_the_program(runtime: GVisorRuntime) -> None:
    """With one open file for both streams, Debian's runsc reports EAGAIN in more than half of these programs."""
    code = "import sys\nprint('x' * 200_000, end='')\nprint('y' * 200_000, end='', file=sys.stderr)"
    ended = []

    async def prints() -> None:
        # Not with -u: it ignores that a write was incomplete.
        ended.append(await run(runtime, container("python3", "-c", code)))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(prints)
    assert [(exit_, output.count(b"x"), output.count(b"y")) for exit_, output in ended] == [
        (ContainerExit(0, "Completed"), 200_000, 200_000)
    ] * 8

"""Containers as plain processes: the tests for all runtimes, and no process, file or descriptor is left."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from gke_sandbox.local.runtimes.base import ContainerExit, ContainerStartError
from gke_sandbox.local.runtimes.process import ProcessRuntime

from .client_behaviours import *  # noqa: F403
from .containers import container, is_alive, python, run, running
from .runtime_behaviours import *  # noqa: F403
from .runtime_behaviours import UNTIL_TERMINATED

pytestmark = pytest.mark.anyio

# Leaves the session, loses its parent, its environment and its standard streams, and stays.
ESCAPE = """
import os
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.chdir("/")
        os.write(writing, b"%d" % os.getpid())
        os.closerange(0, 100)
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    os._exit(0)
os.wait()
os.close(writing)
print(os.read(reading, 100).decode())
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def runtime(temporary: Path) -> Iterator[ProcessRuntime]:
    runtime = ProcessRuntime()
    try:
        yield runtime
    finally:
        left = [path.name for path in temporary.glob("*/*")]
        runtime.kill_all()
        assert (left, os.listdir(temporary)) == ([], [])


async def test_a_daemon_dies_with_the_program_that_left_it(runtime: ProcessRuntime) -> None:
    _, output = await run(runtime, python(ESCAPE))
    assert not is_alive(int(output))


async def test_a_daemon_is_dead_when_the_exit_is_reported(runtime: ProcessRuntime) -> None:
    async with running(runtime, python(ESCAPE + "os._exit(0)")) as (started, lines):
        daemon = int(await lines.next())
        await started.wait()
        assert not is_alive(daemon)


async def test_a_daemon_dies_when_the_container_is_stopped(runtime: ProcessRuntime) -> None:
    async with running(runtime, python(ESCAPE + "import signal; signal.pause()")) as (started, lines):
        daemon = int(await lines.next())
        assert is_alive(daemon)
        await started.stop(30)
        assert not is_alive(daemon)


async def test_a_daemon_dies_when_its_container_is_closed_and_others_survive(runtime: ProcessRuntime) -> None:
    async with (
        running(runtime, python(UNTIL_TERMINATED)) as (other, other_lines),
        running(runtime, python(ESCAPE + "import signal; signal.pause()")) as (started, lines),
    ):
        await other_lines.next()
        daemon = int(await lines.next())
        await started.aclose()
        assert not is_alive(daemon)
        await other.stop(30)
        assert (await other.wait()).exit_code == 7


async def test_a_fork_bomb_is_killed(runtime: ProcessRuntime) -> None:
    """Each process starts another one in a new session before it is killed."""
    code = """
import os, signal
if os.fork():
    signal.pause()
while not os.fork():
    os.setsid()
    print(os.getpid())
"""
    async with running(runtime, python(code)) as (started, lines):
        seen = [await lines.next() for _ in range(50)]
        await started.stop(0)
        seen += (await lines.rest()).decode().split()
        assert not is_alive(int(seen[-1]))


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process
        process.kill()


async def test_a_process_outside_of_the_container_is_not_killed(
    runtime: ProcessRuntime, bystander: subprocess.Popen[bytes]
) -> None:
    await run(runtime, python(ESCAPE))
    runtime.kill_all()
    assert bystander.poll() is None


async def test_many_at_once_take_no_threads_and_leave_no_descriptors(runtime: ProcessRuntime) -> None:
    await run(runtime, container())
    descriptors = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count(), len(os.listdir("/proc/self/task"))
    results: list[tuple[ContainerExit, bytes]] = []
    started = 0

    async def one(number: int) -> None:
        nonlocal started
        async with running(
            runtime, container("sh", "-c", f"echo {number}; read line < /dev/null; sleep 1000")
        ) as (
            sleeping,
            lines,
        ):
            assert await lines.next() == str(number)
            started += 1
            if started == 120:
                everyone.set()
                # Idle worker threads of earlier tests may have ended since.
                assert threading.active_count() <= threads[0]
                assert len(os.listdir("/proc/self/task")) <= threads[1]
            await everyone.wait()
            await sleeping.stop(0)
            results.append((await sleeping.wait(), await lines.rest()))

    everyone = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for number in range(120):
            tasks.start_soon(one, number)
    assert len(results) == 120
    assert {ended.exit_code for ended, _ in results} <= {137, 143}
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_the_working_directory_is_new(runtime: ProcessRuntime, temporary: Path) -> None:
    _, output = await run(runtime, python("import os; print(os.getcwd(), os.listdir('.'))"))
    folder, names = output.decode().split(" ", 1)
    assert Path(folder).is_relative_to(temporary)
    assert names == "[]\n"


async def test_a_working_directory_at_a_mount_path_is_mapped(runtime: ProcessRuntime) -> None:
    spec = python("import os; print(os.getcwd() == os.environ['TMPDIR'] + '/deep')", working_dir="/tmp/deep")
    for scratch in ({"/tmp": None}, {"/tmp/": 1000}):
        fields = {**vars(spec), "scratch": scratch}
        assert (await run(runtime, type(spec)(**fields)))[1] == b"True\n"


async def test_no_mount_path_leads_outside_of_the_containers_directory(
    runtime: ProcessRuntime, temporary: Path
) -> None:
    files = {"/app/../../../../../../outside": b"1"}
    await run(runtime, python("1", files=files, scratch={"/../../tmp": None}))
    assert not (temporary.parent / "outside").exists()


async def test_arguments_that_only_resemble_mount_paths_are_not_mapped(runtime: ProcessRuntime) -> None:
    code = "import sys; print(sys.argv[1:])"
    spec = container("python3", "-c", code, "/application/x", "see /app/x", files={"/app/x": b""})
    assert (await run(runtime, spec))[1] == b"['/application/x', 'see /app/x']\n"


async def test_limits_are_set(runtime: ProcessRuntime) -> None:
    code = """
import resource
for name in ("CORE", "FSIZE", "DATA", "NOFILE"):
    print(resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0])
"""
    spec = python(code, memory_limit=512 << 20, ephemeral_limit=1 << 20)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    assert [int(line) for line in (await run(runtime, spec))[1].split()] == [0, 1 << 20, 3 << 30, files]


async def test_a_file_over_the_storage_limit_is_an_error_in_the_program(runtime: ProcessRuntime) -> None:
    code = """
import tempfile
try:
    tempfile.TemporaryFile().write(b"x" * 2_000_000)
except OSError as error:
    print(error.strerror)
"""
    assert (await run(runtime, python(code, ephemeral_limit=1 << 20)))[1] == b"File too large\n"


async def test_a_program_has_the_default_signal_handlers_and_no_open_files(runtime: ProcessRuntime) -> None:
    code = "ls -l /proc/self/fd | grep -c '[0-9] -> '; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    _, output = await run(runtime, container("sh", "-c", code))
    # The fourth is the directory that ls reads.
    assert output.split() == [b"4", b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


async def test_everything_that_a_program_leaves_in_its_directories_is_removed(runtime: ProcessRuntime) -> None:
    """The fixture checks that nothing is left."""
    code = """
import os
for name in ["d" * 200] * 60:
    os.mkdir(name)
    os.chdir(name)
os.symlink("/", "root")
os.mkfifo("pipe")
os.chmod(".", 0)
"""
    ended, output = await run(runtime, python(code, scratch={"/tmp": None}, files={"/app/deep/er/x": b""}))
    assert ended.exit_code == 0, output


async def test_a_link_that_replaces_its_directory_is_removed_and_not_followed(
    runtime: ProcessRuntime, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kept = tmp_path_factory.mktemp("kept")
    (kept / "file").touch()
    code = f"""
import os
folder = os.path.dirname(os.getcwd())
os.rename(folder, folder + "-moved")
os.symlink({str(kept)!r}, folder)
os.chdir("/")
os.system("rm -r " + folder + "-moved")
"""
    await run(runtime, python(code))
    assert os.listdir(kept) == ["file"]


def test_a_program_starts_although_the_standard_streams_are_closed(temporary: Path) -> None:
    with another_python(temporary, "await container.aclose()", closed="<&- 2>&-") as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    assert int(output)
    assert_all_ends(temporary)


async def test_containers_can_be_started_after_kill_all(runtime: ProcessRuntime, temporary: Path) -> None:
    async with running(runtime, python(ESCAPE + "import signal; signal.pause()")) as (started, lines):
        daemon = int(await lines.next())
        runtime.kill_all()
        assert not is_alive(daemon)
        assert os.listdir(temporary) == []
        assert await started.wait() == ContainerExit(137, "Error")
        assert await lines.rest() == b""
    assert (await run(runtime, python("print(1)")))[1] == b"1\n"


STOPS_ITS_SUPERVISOR = "import os, signal; print(os.kill(os.getppid(), signal.SIGSTOP)); signal.pause()"


async def test_a_program_that_stops_its_supervisor_can_be_closed(runtime: ProcessRuntime) -> None:
    async with running(runtime, python(STOPS_ITS_SUPERVISOR)) as (_, lines):
        await lines.next()


async def test_a_program_that_stops_its_supervisor_does_not_delay_other_containers(
    runtime: ProcessRuntime,
) -> None:
    async with running(runtime, python(STOPS_ITS_SUPERVISOR)) as (_, lines):
        await lines.next()
        with anyio.fail_after(20):
            assert (await run(runtime, python("print(1)")))[1] == b"1\n"


async def test_a_program_that_kills_its_supervisor_dies_and_others_can_be_started(
    runtime: ProcessRuntime,
) -> None:
    code = "import os, signal; print(os.getpid()); os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
    async with running(runtime, python(code)) as (started, lines):
        await lines.next()
        assert await started.wait() == ContainerExit(137, "Error")
        assert await lines.rest() == b""
    assert (await run(runtime, python("print(1)")))[1] == b"1\n"


STARTED = """
import anyio, os, sys, tempfile
from gke_sandbox.local.runtimes.process import ProcessRuntime
from gke_sandbox.local.runtimes.base import ContainerSpec

async def main():
    code = sys.argv[2] + "import signal; signal.pause()"
    container = await runtime.start(ContainerSpec("default", "pod", "uid", "c", ("python3", "-u", "-c", code)))
    print((await anext(container.output())).decode(), flush=True)
    ENDING

tempfile.tempdir = sys.argv[1]
runtime = ProcessRuntime()
anyio.run(main)
"""


def another_python(temporary: Path, ending: str, closed: str = "") -> subprocess.Popen[bytes]:
    """Another Python that starts a container, prints the pid of its daemon, and goes on with `ending`."""
    code = STARTED.replace("ENDING", "\n    ".join(ending.splitlines()))
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c", code, str(temporary), ESCAPE]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def assert_all_ends(temporary: Path) -> None:
    """Wait for the end of the supervisor, which outlives its Python by a moment; then nothing must be left."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(temporary).encode() not in line.read_bytes():
                continue
            supervisor = os.pidfd_open(int(line.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert select.select([supervisor], [], [], 30)[0]
        os.close(supervisor)
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("ending", ["sys.exit(3)", "os._exit(3)"])
def test_nothing_is_left_when_python_exits_without_closing(temporary: Path, ending: str) -> None:
    with another_python(temporary, ending) as process:
        output, _ = process.communicate()
    assert process.returncode == 3
    assert_all_ends(temporary)
    assert not is_alive(int(output))


def test_nothing_is_left_when_python_is_killed(temporary: Path) -> None:
    with another_python(temporary, "os.kill(os.getpid(), 9)") as process:
        output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert_all_ends(temporary)
    assert not is_alive(int(output))


def test_a_forked_child_does_not_affect_its_parents_containers(temporary: Path) -> None:
    ending = """
pid = os.fork()
if pid == 0:
    runtime.kill_all()
    sys.exit(0)
os.waitpid(pid, 0)
os.kill(container.pid, 0)
await container.stop(30)
print(await container.wait())
await container.aclose()
"""
    with another_python(temporary, ending) as process:
        output, _ = process.communicate()
    assert b"exit_code=143" in output
    assert_all_ends(temporary)


@pytest.mark.parametrize("path", ["{up}bin", "/no/such/folder:{up}bin", "{up}bin:/bin"])
async def test_a_program_in_a_relative_entry_of_path_is_not_started(runtime: ProcessRuntime, path: str) -> None:
    with pytest.raises(
        ContainerStartError, match='"sh": cannot run executable found relative to current directory'
    ):
        await runtime.start(container("sh", "-c", "exit", env={"PATH": path.format(up="../" * 30)}))


async def test_an_earlier_absolute_entry_of_path_wins(runtime: ProcessRuntime) -> None:
    ended, _ = await run(
        runtime, container("sh", "-c", "exit 3", env={"PATH": "no-such:/bin::" + "../" * 30 + "bin"})
    )
    assert ended.exit_code == 3


async def test_input_that_no_process_reads_is_discarded(runtime: ProcessRuntime) -> None:
    code = "import os\nos.close(0)\nprint('closed')\nimport signal; signal.pause()"
    async with running(runtime, python(code, stdin=True)) as (started, lines):
        assert await lines.next() == "closed"
        await started.write_stdin(b"x" * (4 << 20))

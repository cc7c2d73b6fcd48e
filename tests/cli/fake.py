"""A Sandbox that plays a script instead of running a program, to test how the command handles events and errors.

`command(steps)` runs the command in this process. ``python -m tests.cli.fake SCENARIO JOURNAL ARGUMENT...`` runs
it in a new process, for tests with signals and closed pipes, and writes what happens to the Job to the file
JOURNAL.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import anyio.abc

from gke_sandbox._stream import ExecutionStream
from gke_sandbox.cli import main
from gke_sandbox.cluster import Cluster
from gke_sandbox.errors import StartError
from gke_sandbox.result import (
    ExecutionEvent,
    ExecutionFinished,
    ExecutionResult,
    OutputChunk,
    PhaseChanged,
    PodWaiting,
    Status,
    Timings,
)
from gke_sandbox.settings import Settings


@dataclass(frozen=True)
class Sleep:
    """Wait. `FOREVER` waits until the run is cancelled."""

    seconds: float


FOREVER = Sleep(1000.0)
Step = ExecutionEvent | Sleep | Exception


def phases() -> list[Step]:
    return [
        PhaseChanged("created", 0.011),
        PhaseChanged("scheduled", 0.021, "node-1"),
        PhaseChanged("started", 0.5),
    ]


def out(data: bytes) -> OutputChunk:
    return OutputChunk("stdout", data, 0.6)


def err(data: bytes) -> OutputChunk:
    return OutputChunk("stderr", data, 0.6)


def finished(status: Status = "succeeded", exit_code: int | None = 0, **more: Any) -> ExecutionFinished:
    more.setdefault("timings", Timings(created=0.011, returned=0.7123456))
    return ExecutionFinished(ExecutionResult(status=status, exit_code=exit_code, job="job-1", pod="pod-1", **more))


@dataclass
class FakeSandbox:
    """Replaces `AsyncSandbox`."""

    steps: Sequence[Step]
    cluster: Cluster
    settings: Settings
    delete_seconds: float = 0.0
    record: Callable[[str], None] = lambda _: None
    program: dict[str, Any] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.settings.namespace

    async def __aenter__(self) -> FakeSandbox:
        self._tasks = await anyio.create_task_group().__aenter__()
        self._scope = anyio.CancelScope()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.cancel()
        self._tasks.cancel_scope.shield = True
        await self._tasks.__aexit__(None, None, None)

    def stream(
        self,
        code: bytes,
        *,
        files: Mapping[str, bytes],
        args: Sequence[str],
        stdin: bytes | None,
    ) -> ExecutionStream:
        self.program.update(code=code, files=dict(files), args=list(args), stdin=stdin)

        def start(stream: ExecutionStream) -> Callable[[], None]:
            self._tasks.start_soon(self._play, stream)
            return self._scope.cancel

        return ExecutionStream(start)

    def _delete_jobs_sync(self) -> None:
        self.record("deleted now")

    async def _play(self, stream: ExecutionStream) -> None:
        self.jobs.append("job-1")
        self.record("created")
        try:
            with self._scope:
                for step in self.steps:
                    if isinstance(step, Sleep):
                        await anyio.sleep(step.seconds)
                    elif isinstance(step, Exception):
                        stream._end(step)
                        return
                    else:
                        stream._put(step)
                stream._end()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.delete_seconds)
            self.jobs.clear()
            self.record("deleted")


@dataclass
class Command:
    """The command with a fake Sandbox: `status` is its exit code, `sandbox` the Sandbox if it opened one."""

    steps: Sequence[Step]
    status: int | None = None
    sandbox: FakeSandbox | None = None
    delete_seconds: float = 0.0
    record: Callable[[str], None] = lambda _: None

    def open_sandbox(self, cluster: Cluster, **settings: Any) -> Any:
        self.sandbox = FakeSandbox(
            self.steps, cluster, Settings().override(**settings), self.delete_seconds, self.record
        )
        return self.sandbox

    def run(self, *arguments: str) -> Command:
        self.status = main(["run", *arguments], open_sandbox=self.open_sandbox)
        return self


def command(steps: Sequence[Step], *arguments: str) -> Command:
    """Run ``gke-sandbox run`` with `arguments` in this process."""
    return Command(steps).run(*arguments)


SCENARIOS: dict[str, Sequence[Step]] = {
    "hello": [*phases(), Sleep(0.15), out(b"42\n"), finished()],
    "waits": [*phases(), FOREVER],
    "prints and waits": [*phases(), out(b"first\n"), FOREVER],
    "prints forever": [*phases(), *[step for _ in range(1000) for step in (out(b"y\n" * 5000), Sleep(0.01))]],
    "prints and ends": [*phases(), out(b"one\n"), Sleep(0.3), finished()],
    "pulls": [
        *phases()[:2],
        PodWaiting("ErrImagePull", "no such \x1b[31mimage\n" + "x" * 300, 0.1),
        Sleep(0.15),
        StartError("the sandbox did not start: ErrImagePull", hint="check the image's name"),
    ],
    "both": [*phases(), Sleep(0.15), out(b"out"), err(b"err"), Sleep(0.15), finished("timed_out", None)],
    "crashes": [*phases(), out(b"some\n"), RuntimeError("unexpected")],
}


def _program() -> int:
    scenario, journal, *arguments = sys.argv[1:]

    def record(what: str) -> None:
        with Path(journal).open("a") as lines:
            print(what, file=lines)

    slow = scenario.endswith(", slow to delete")
    steps = SCENARIOS[scenario.removesuffix(", slow to delete")]
    done = Command(steps, delete_seconds=1000.0 if slow else 0.05, record=record).run(*arguments)
    assert done.status is not None
    return done.status


if __name__ == "__main__":
    raise SystemExit(_program())

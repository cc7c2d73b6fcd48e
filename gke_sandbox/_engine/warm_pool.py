"""Warm pods: Jobs created ahead of time, whose runners are connected and wait for a program."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import fields
from typing import Any

import anyio

from ..errors import SandboxClosed, SandboxError
from ..kube.retry import Retry
from ..result import ExecutionResult
from ..settings import AGENT_LABEL, INVOCATION_ANNOTATION, Settings
from .execution import Execution, closed_during_the_run

logger = logging.getLogger(__name__)

RETIRE_BEFORE = 10.0
"""How long before the end of its idle time a pod is replaced, in seconds; or a tenth of it, if that is less."""
INITIAL_DELAY, MAX_DELAY = 1.0, 60.0
"""Delays before a pod that could not be used is replaced, in seconds."""
STABLE_AFTER = 60.0
"""A pod that ends earlier than this many seconds after it was ready, without a program, counts as one that could
not be used: the delay before the next one grows."""
PER_RUN = frozenset([INVOCATION_ANNOTATION, AGENT_LABEL])
"""The annotation and the label with the call that a Job is for. A warm pod is created before they are known."""

_IN_THE_REQUEST = frozenset(
    ["timeout", "env", "labels", "annotations", "max_output_bytes", "max_file_bytes", "max_files"]
)
"""The settings that travel with the program, or are compared separately."""
_WITHOUT_EFFECT = frozenset(["delivery", "startup_timeout", "tmp_size"])
"""The settings that do not change a container that waits."""
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "LANG")
"""Prefixes of variables that the C library or the interpreter reads when it starts."""


class WarmPod:
    """One warm pod. Its task runs `execution`, which takes over a run."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.taken = False
        self.error: Exception | None = None
        """Why the pod ended, if it is an error; that of the function for events is any exception."""
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._result: ExecutionResult | None = None

    async def run(self) -> None:
        """Start the pod, and wait for its program and for its end."""
        try:
            with self._scope:
                self._result = await self.execution.run()
        except Exception as error:
            if not self.taken and not isinstance(error, SandboxError):
                raise
            self.error = error
        finally:
            self._ended.set()

    def cancel(self) -> None:
        """Delete the Job. `run` ends."""
        self._scope.cancel()

    async def result(self) -> ExecutionResult:
        """Wait for the result of the run that was taken over. Cancelling the call deletes the Job."""
        try:
            await self._ended.wait()
        finally:
            if not self._ended.is_set():
                self.cancel()
                with anyio.CancelScope(shield=True):
                    await self._ended.wait()
        if self._result is not None:
            return self._result
        raise self.error or closed_during_the_run(self.execution)


class WarmPool:
    """Keeps `size` warm pods while its Sandbox is open. `settings` are those of the Sandbox.

    `new_execution` returns an execution without a program, which calls its last argument when it is ready.
    `in_flight` observes it, `start_soon` starts tasks, `record_ready` gets each change of the number of ready
    pods. A pod that is taken is replaced at once. After one that could not be used there is a growing delay, and
    one pod is tried at a time until one is ready.
    """

    def __init__(
        self,
        size: int,
        idle_timeout: float,
        settings: Settings,
        new_execution: Callable[[Settings, float, Callable[[], None]], Execution],
        in_flight: Callable[[Execution], AbstractContextManager[None]],
        start_soon: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        record_ready: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.size = size
        self.problem = ""
        """Why the last pod could not be used; empty once a pod is ready again."""
        self._idle_timeout = idle_timeout
        self._settings = settings
        self._new_execution = new_execution
        self._in_flight = in_flight
        self._start_soon = start_soon
        self._record_ready = record_ready
        self._ready: deque[WarmPod] = deque()
        self._waiting: set[WarmPod] = set()
        self._starting = 0
        self._closed = self._paused = False
        self._retry = Retry(initial_delay=INITIAL_DELAY, max_delay=MAX_DELAY)
        self._logged: set[str] = set()
        self._changed = anyio.Event()

    @property
    def ready(self) -> int:
        """The number of pods that wait for a program."""
        return sum(pod.execution.is_ready for pod in self._ready)

    async def wait_until_ready(self) -> None:
        """Wait until a pod waits for a program, or one could not be used."""
        while not self.ready and not self.problem:
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def close(self) -> None:
        """Create no more pods."""
        self._closed = True

    def take(self, run: Execution) -> WarmPod | None:
        """Let a pod that waits take over a run. Return None if no pod is ready, or if the settings need another.

        Raises `PayloadTooLarge`.
        """
        if not can_run(self._settings, run.settings):
            return None
        while self._ready:
            pod = self._ready[0]
            if pod.execution.is_ready:
                pod.execution.take_over(run)
                pod.taken = True
                self._retry.reset()
                self._remove(pod)
                self.fill()
                return pod
            self._remove_ready(pod)
        return None

    def _remove(self, pod: WarmPod) -> None:
        self._waiting.discard(pod)
        if pod in self._ready:
            self._remove_ready(pod)

    def _remove_ready(self, pod: WarmPod) -> None:
        self._ready.remove(pod)
        self._record_ready(-1)

    def fill(self) -> None:
        """Create the pods that are missing."""
        limit = min(self.size, self.ready + 1) if self.problem else self.size
        while len(self._waiting) + self._starting < limit and not (self._closed or self._paused):
            try:
                self._start_soon(self._keep)
            except SandboxClosed:
                return
            self._starting += 1

    async def _keep(self) -> None:
        """Create a pod and keep it until it is taken, has ended, or is too old. Then replace it."""
        if self._closed:
            return
        ready = anyio.Event()
        self._starting -= 1
        settings = self._settings.override(delivery="attach")
        pod = WarmPod(self._new_execution(settings, self._idle_timeout, ready.set))
        self._waiting.add(pod)

        async def wait_until_ready() -> None:
            await ready.wait()
            self.problem = ""
            if pod in self._waiting:
                self._ready.append(pod)
                self._record_ready(1)
                self._wake()
            self.fill()
            useful = self._idle_timeout - min(RETIRE_BEFORE, self._idle_timeout / 10)
            await anyio.sleep(min(STABLE_AFTER, useful))
            self._retry.reset()
            await anyio.sleep(max(useful - STABLE_AFTER, 0.0))
            if not pod.taken:
                self._remove(pod)
                pod.cancel()

        with suppress(SandboxClosed), self._in_flight(pod.execution):
            async with anyio.create_task_group() as group:
                group.start_soon(wait_until_ready)
                await pod.run()
                group.cancel_scope.cancel()
        self._remove(pod)
        if isinstance(pod.error, SandboxError) and not pod.taken and not self._closed:
            self._report(pod.error)
            if self._paused:
                return
            self._paused = True
            await anyio.sleep(self._retry.record_failure(pod.error) or MAX_DELAY)
            self._paused = False
        self.fill()

    def _report(self, error: SandboxError) -> None:
        self.problem = f"{error.message}. {error.hint}" if error.hint else error.message
        self._wake()
        # Messages contain names of Jobs.
        kind = getattr(error, "cause", "") or type(error).__name__
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning("a warm pod could not be used: %s", self.problem)


def can_run(pod: Settings, run: Settings) -> bool:
    """Whether a warm pod of a Sandbox with the settings `pod` can run a program with the settings `run`."""
    compared = [each.name for each in fields(Settings) if each.name not in _IN_THE_REQUEST | _WITHOUT_EFFECT]
    return (
        run.timeout <= pod.timeout
        and run.delivery in (pod.delivery, "attach")
        and _adds_only(pod.env, run.env)
        and _without_call(pod.annotations) == _without_call(run.annotations)
        and _without_call(pod.labels) == _without_call(run.labels)
        and all(getattr(pod, name) == getattr(run, name) for name in compared)
    )


def _without_call(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in PER_RUN}


def _adds_only(pod: Mapping[str, str], run: Mapping[str, str]) -> bool:
    """Whether a request can make the variables of `pod` those of `run`."""
    changed = [name for name in run if pod.get(name) != run[name]]
    return pod.keys() <= run.keys() and not any(name.startswith(_READ_AT_START) for name in changed)

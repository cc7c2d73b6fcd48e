"""One execution: Job, ConfigMap, the pod runs, frames come, the result is known, the Job is deleted.

One task does all of it. The shared pod watch (`pods.PodWatch`) calls `Execution.observe` between its awaits;
what it learns wakes the task through an event, or ends the reading of the log by moving a deadline.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio

from .._diagnosis import PodState, Termination, WaitReason, cause, messages, read_pod
from .._diagnosis.admission import Change, pod_changes
from .._wire.frames import PROTOCOL, Exit, Frame, Limits, Output, Start
from .._wire.manifests import CONTAINER
from .._wire.program import Program
from ..errors import Forbidden, ResultLost, SandboxError, Unauthorized
from ..kube.client import KubeClient
from ..result import (
    ExecutionEvent,
    ExecutionResult,
    OutputChunk,
    PhaseChanged,
    PhaseName,
    PodWaiting,
    Status,
    Timings,
)
from ..settings import Settings
from .create import Attempt, create, unsafe
from .log_stream import LogReader
from .pod_watch import PodWatch
from .startup_probe import Inquiry

OVERTIME_SECONDS = 5.0
"""The client deletes the Job this long after the time limit: the runner, which should have, did not."""

WORD_SECONDS = 3.0
"""How long to wait for the pod's own word when the log ended without an exit frame."""

LAST_LOOK_SECONDS = 3.0
"""How long a last look at the pod may take, before its run is given up."""
READ_AGAIN_TIMES = 2
"""How often a log without its end is read again, of a container that has ended by itself."""

_SIGKILL = 9
_MOST_SIGNALS = 64
_TIMED_OUT_CODE = 124
_RUNNER_FAILED_CODE = 125


class Execution:
    """One program in one pod. `run` is called once."""

    def __init__(
        self,
        *,
        client: KubeClient,
        pods: PodWatch,
        settings: Settings,
        program: Program,
        session: str,
        new_name: Callable[[], str],
        delete: Callable[[Attempt, Execution], None],
        emit: Callable[[ExecutionEvent], None],
    ) -> None:
        self._client = client
        self._pods = pods
        self.settings = settings
        self._program = program
        self._session = session
        self._new_name = new_name
        self._delete = delete
        self._emit = emit

        self.attempts: list[Attempt] = []
        """The Jobs that were made, or may have been. Only the last can bring a result."""
        self.settled = threading.Event()
        """Set when the run has ended and its Jobs are deleted, or deleting them was given up."""

        self._began = 0.0
        self._seen: dict[PhaseName, float] = {}
        self._pod: PodState | None = None
        self._pod_object: Mapping[str, Any] = {}
        self._has_run = self._vanished = False
        self._wait: WaitReason | None = None
        self._pod_state: tuple[object, ...] = ()
        self._inquiry: Inquiry | None = None
        self._unsafe: list[Change] = []
        self._watch_error: SandboxError | None = None
        # What is left as soon as there is no need for it any more.
        self._scopes: dict[anyio.CancelScope, Callable[[], bool]] = {}
        self._log = self._new_log()

    def _new_log(self) -> LogReader:
        caps = self.settings
        limits = Limits(
            output_bytes=caps.max_output_bytes, file_bytes=caps.max_file_bytes, file_count=caps.max_files
        )
        return LogReader(self._client, caps.namespace, limits, self._take)

    # -- the run ------------------------------------------------------------------------------------------

    async def run(self) -> ExecutionResult:
        """Run the program and return how it ended.

        Raises `StartError` if it did not start, `ResultLost` if nobody knows how it ended, `ApiError` and
        `NetworkError` for what the server and the network refuse. However it ends, the Job's deletion has
        been handed to `delete` when this returns or raises.
        """
        self._began = anyio.current_time()
        self._changed = anyio.Event()
        with contextlib.ExitStack() as observing:

            def begin(attempt: Attempt) -> None:
                """A new Job, observed from here on; the one before it, if any, is given up."""
                self._give_up_last()
                observing.close()
                self._pod, self._pod_object, self._wait, self._seen = None, {}, None, {}
                self._pod_state, self._unsafe, self._inquiry, self._log = (), [], None, self._new_log()
                observing.enter_context(self._pods.observing(attempt.name, self.observe, self.watch_failed))
                self.attempts.append(attempt)

            try:
                limit = self._began + self.settings.startup_timeout
                await self._create(begin, limit)
                self._reach("created")
                await self._until_started(limit)
                return await self._until_finished()
            finally:
                self._give_up_last()

    def _give_up_last(self) -> None:
        if self.attempts and self.attempts[-1].may_exist:
            self._delete(self.attempts[-1], self)

    @property
    def job(self) -> str:
        """The name of the last Job."""
        return self.attempts[-1].name

    @property
    def _pod_name(self) -> str:
        return self._pod.name if self._pod is not None else ""

    async def _create(self, begin: Callable[[Attempt], None], limit: float) -> None:
        """Make Job and ConfigMap. A container that has started has both, whatever becomes of the answers."""
        try:
            with self._needed_until(self._pod_decides):
                await create(
                    self._client, self.settings, self._program, self._session, self._new_name, begin, limit
                )
        except SandboxError as error:
            if not self.attempts or not self.attempts[-1].may_run:
                raise
            with self._needed_until(self._pod_decides, anyio.current_time() + LAST_LOOK_SECONDS):
                await self._look(self._new_inquiry())
            if not self._has_started():
                raise messages.unanswered(error, self.job, self._pod_name) from error
        else:
            self._has_started()

    @contextlib.contextmanager
    def _needed_until(self, decided: Callable[[], bool], deadline: float = math.inf) -> Iterator[None]:
        """Leave the block at the deadline, or as soon as `decided` is true after something was seen."""
        with anyio.CancelScope(deadline=deadline) as scope:
            self._scopes[scope] = decided
            try:
                yield
            finally:
                del self._scopes[scope]

    async def _until_started(self, limit: float) -> None:
        """WaitReason for a container that runs, or has run. Raises `StartError`, `ResultLost`."""
        with self._pods.awaiting_start(self.job):
            await self._await_start(limit, self._new_inquiry())

    def _new_inquiry(self) -> Inquiry:
        pods = self._pods
        self._inquiry = Inquiry(self._client, self.settings.namespace, self.job, lambda: pods.starting)
        return self._inquiry

    async def _await_start(self, limit: float, inquiry: Inquiry) -> None:
        last_look = False
        while not self._has_started():
            due = inquiry.due(self._pod)
            if anyio.current_time() >= limit:
                if last_look:
                    raise messages.start_timed_out(
                        self.settings.startup_timeout,
                        self.job,
                        self._pod,
                        self._wait,
                        (self._pods.trouble or inquiry.trouble) if inquiry.trouble is not None else None,
                        inquiry.events_forbidden,
                    )
                last_look = True
                await self._inquire(inquiry, anyio.current_time() + LAST_LOOK_SECONDS, look=True, last=True)
            elif anyio.current_time() >= due:
                await self._inquire(inquiry, limit, look=inquiry.looks(self._pod))
            else:
                with anyio.move_on_at(min(limit, due)):
                    await self._changed.wait()

    def _pod_decides(self) -> bool:
        """Whether what is known of the pod says that it has started, or that no waiting helps."""
        pod = self._pod
        return (
            self._vanished
            or bool(self._unsafe)
            or (pod is not None and (pod.running or pod.termination is not None))
            or (self._wait is not None and self._wait.is_permanent)
        )

    def _has_started(self) -> bool:
        """Whether the container runs, or has run. Raises `StartError` when no waiting helps."""
        if self._watch_error is not None:
            raise self._watch_error
        if self._unsafe:
            ran = self.attempts[-1].may_run
            raise messages.unsafe_admission_change(self._unsafe, self.job, self._pod_name, may_have_run=ran)
        pod = self._pod
        if pod is not None and pod.termination is not None:
            if pod.termination.kind == "not_started":
                raise messages.not_started(pod.termination, self.job, self._pod_name)
            return True
        if pod is not None and pod.running:
            return True
        if self._vanished:
            raise messages.vanished(self.job, self._pod_name)
        if self._wait is not None and self._wait.is_permanent:
            raise messages.not_started(self._wait, self.job, self._pod_name)
        return False

    async def _inquire(self, inquiry: Inquiry, deadline: float, *, look: bool, last: bool = False) -> None:
        """Read what the Events say, and look at the pods themselves, if `look` says so.

        Not for longer than until `deadline`, or until the watch says enough: see `_wake`. With the `last` look,
        whether it runs counts more than why it does not.
        """
        with self._needed_until(lambda: self._watch_error is not None or self._pod_decides(), deadline):
            if last:
                await self._look(inquiry)
            pod = self._pod
            told = await inquiry.wait(pod)
            if self._pod is pod and told is not None:
                self._waits_for(told)
                look = look and not told.is_permanent
            if look and not last:
                await self._look(inquiry)

    async def _look(self, inquiry: Inquiry) -> bool:
        """Look at the pod itself, for the watch may be blind. False: the server did not tell."""
        known = self._pod
        found = await inquiry.pods(self._pod_object)
        for pod in found or ():
            self.observe("MODIFIED", pod)
        if found is not None and known is not None and self._pod is known and not self._ended and not found:
            self.observe("MISSING", self._pod_object)
        return found is not None

    def _waits_for(self, wait: WaitReason | None) -> None:
        if wait != self._wait:
            self._wait = wait
            if wait is not None:
                self._emit(PodWaiting(wait.reason, wait.message, self._elapsed(), wait.cause.name))

    async def _until_finished(self) -> ExecutionResult:
        self._limit_reading()
        # It may have ended long ago, while the ConfigMap's answer was on its way.
        self._log.begin()
        again = READ_AGAIN_TIMES
        while True:
            await self._read_log()
            if self._log.said.exit is not None:
                return await self._finished_by_itself(self._log.said.exit)
            if not self._ended and anyio.current_time() >= self._log.limit:
                if (result := await self._overtime()) is not None:
                    return result
                self._log.begin()
                continue
            termination = await self._pods_word()
            if termination is not None and termination.kind == "exited" and not self._log.gone and again:
                # The runner's last words must be there: what was read broke off, or went silent.
                again -= 1
                continue
            if termination is not None:
                return self._ended_from_outside(termination)
            if self._log.gone or self._watch_error is not None or self._pod is None or not self._pod.running:
                why = self._watch_error or "the cluster does not say why"
                raise self._lost(f"the log ended without a result, and {why}") from self._watch_error
            # The container runs, so the log was cut off in the middle: go on where it was.

    def _limit_reading(self) -> None:
        """The program has the whole of its time from now on."""
        self._log.limit = anyio.current_time() + self.settings.timeout + OVERTIME_SECONDS
        self._log.move_deadline()

    # -- what the watch says ------------------------------------------------------------------------------

    def observe(self, type_: str, pod: Mapping[str, Any]) -> None:
        """Take one event of the pod watch. Called from the watch's task."""
        if self._ended:
            return
        if type_ == "MISSING":
            self._vanished = True
            if not self._has_run:
                # It may have, unseen.
                self._wake()
                return
        seen = read_pod(pod, CONTAINER, deleted=type_ in ("DELETED", "MISSING"), has_run=self._has_run)
        if self._pod is None or self._pod.name != seen.name:
            # What is compared cannot change after a pod's creation.
            self._unsafe = unsafe(pod_changes(self.attempts[-1].job, pod, CONTAINER), self.settings, self._client)
        self._pod, self._pod_object = seen, pod
        self._has_run = self._has_run or seen.running
        if seen.termination is not None:
            self._log.container_ended(kept=seen.termination.kind != "killed")
        if seen.node:
            self._reach("scheduled", seen.node)
        if seen.running or (seen.termination is not None and seen.termination.ran is True):
            self._reach("started")
        if self._pod_state != (state := (seen.node, seen.phase, seen.wait_reason)):
            self._pod_state = state
            self._waits_for(seen.wait_reason)
            if self._inquiry is not None:
                self._inquiry.moved()
        self._wake()

    @property
    def _ended(self) -> bool:
        """Whether the container has ended, as far as the cluster has told."""
        return self._pod is not None and self._pod.termination is not None

    def watch_failed(self, error: SandboxError) -> None:
        """The watch has ended for good."""
        self._watch_error = error
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
        for scope, decided in self._scopes.items():
            if decided():
                scope.cancel()

    async def _pods_word(self) -> Termination | None:
        """What the cluster says of the container's end, if it does within `WORD_SECONDS`."""
        with anyio.move_on_after(WORD_SECONDS):
            while not self._ended and self._watch_error is None:
                await self._changed.wait()
        inquiry = self._new_inquiry()
        with anyio.move_on_after(LAST_LOOK_SECONDS):
            if not self._ended:
                await self._look(inquiry)
            termination = self._pod.termination if self._pod is not None else None
            if termination is not None and termination.cause is not None and termination.cause.name == "deleted":
                return (
                    await inquiry.job_termination(has_run=self._has_run or termination.ran is True) or termination
                )
        return self._pod.termination if self._pod is not None else None

    # -- the log ------------------------------------------------------------------------------------------

    async def _read_log(self) -> None:
        try:
            await self._log.read(self._pod_name)
        except (Forbidden, Unauthorized) as error:
            raise self._lost(f"the program's log could not be read: {error}", hint=error.hint) from error

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Output):
            self._reach("first_output")
            self._emit(OutputChunk(frame.stream, frame.data, self._elapsed()))
        elif isinstance(frame, Start):
            if frame.protocol != PROTOCOL:
                raise self._lost(
                    f"the runner in the pod speaks protocol {frame.protocol}, this client protocol {PROTOCOL}",
                )
            if frame is self._log.said.start:
                self._limit_reading()

    # -- how it ended -------------------------------------------------------------------------------------

    async def _finished_by_itself(self, exit_: Exit) -> ExecutionResult:
        """There is an exit frame. Signal 9 that was not our limit may be the kernel's, for memory: ask the pod.

        That the container's first process left with 128+9 is no news: the runner does so after such a program.
        """
        if exit_.timed_out:
            return self._result("timed_out", exit_)
        if exit_.signal == _SIGKILL:
            termination = await self._pods_word()
            by_signal = termination is not None and termination.cause is cause("killed_by_signal")
            if termination is not None and termination.kind != "exited" and not by_signal:
                return self._ended_from_outside(termination, exit_)
        if exit_.signal is not None:
            return self._result("signaled", exit_)
        return self._result("succeeded" if exit_.code == 0 else "failed", exit_)

    async def _overtime(self) -> ExecutionResult | None:
        """The runner, or the client, did not see the end of the program's time: which of them, the pod says.

        None: the container has ended, and its log is to be read again.
        """
        log, looked = self._log, False
        with anyio.move_on_after(LAST_LOOK_SECONDS):
            looked = await self._look(self._new_inquiry())
        if self._ended:
            return None
        limit = f"its limit of {self.settings.timeout:g} s"
        if not log.open:
            # The program may have ended long ago: while a kubelet is away, its pods are reported as running.
            seen = "the pod was reported as running, and its log could not be read"
            unseen = "neither the program's pod nor its log could be read"
            raise self._lost(f"at {limit} {seen if looked else unseen}: {log.trouble or 'it ended too early'}")
        message = f"the runner in the pod did not end the program at {limit}. Its Job was deleted"
        return self._result("timed_out", reason="Overtime", message=message)

    def _ended_from_outside(self, termination: Termination, exit_: Exit | None = None) -> ExecutionResult:
        log = self._log
        if self._vanished and log.gone:
            # It may have ended by itself before it was taken away.
            raise self._lost("the pod is gone, nobody saw how, and its log with it")
        if termination.kind == "not_started":
            raise messages.not_started(termination, self.job, self._pod_name)
        if termination.ran is None and log.said.start is None:
            raise messages.disrupted(termination, self.job, self._pod_name, log.said)
        if termination.kind == "out_of_memory":
            return self._result("out_of_memory", exit_, signal=_SIGKILL, termination=termination)
        if termination.kind == "killed":
            return self._result("killed", exit_, signal=_SIGKILL, termination=termination)
        unbegun = log.said.start is None and not log.gone
        if unbegun and log.trouble:
            raise self._lost(f"the container has ended and its log could not be read: {log.trouble}")
        if termination.exit_code == 0:
            # Without the runner's exit frame, part of the output is missing.
            why = f"could not be read to its end: {log.trouble}" if log.trouble else "does not contain the result"
            raise self._lost(f"the container ended with code 0, and its log {why}")
        if unbegun or (termination.exit_code == _RUNNER_FAILED_CODE and log.said.runner_failed):
            raise messages.runner_failed(termination, self.job, self._pod_name, log.said, self.settings.image)
        # The runner leaves with the program's own code, 128+N for its signal and 124 for its limit; only its
        # last words were lost on the way.
        code = termination.exit_code or 0
        if code == _TIMED_OUT_CODE and self._ran_to_its_limit():
            return self._result("timed_out", signal=_SIGKILL, termination=termination)
        if 128 < code <= 128 + _MOST_SIGNALS:
            return self._result("signaled", signal=code - 128, termination=termination)
        return self._result("failed", code=code, termination=termination)

    def _ran_to_its_limit(self) -> bool:
        return self._elapsed() - self._seen.get("started", 0.0) >= self.settings.timeout

    def _result(
        self,
        status: Status,
        exit_: Exit | None = None,
        *,
        code: int | None = None,
        signal: int | None = None,
        termination: Termination | None = None,
        reason: str = "",
        message: str = "",
    ) -> ExecutionResult:
        self._reach("finished")
        if exit_ is not None:
            code, signal = exit_.code, exit_.signal
        found, said = "", self._log.said
        if termination is not None:
            reason, message = reason or termination.reason, message or termination.message
            found = termination.cause.name if termination.cause is not None else ""
        return ExecutionResult(
            status=status,
            exit_code=code,
            signal=signal,
            stdout_bytes=bytes(said.stdout),
            stderr_bytes=bytes(said.stderr),
            files=said.files,
            dropped=said.dropped,
            output_truncated=said.rotated or exit_ is None,
            reason=reason if status not in ("succeeded", "failed", "signaled") else "",
            message=message if status not in ("succeeded", "failed", "signaled") else "",
            cause=found if status not in ("succeeded", "failed", "signaled") else "",
            timings=Timings(
                created=self._seen.get("created"),
                scheduled=self._seen.get("scheduled"),
                started=self._seen.get("started"),
                first_output=self._seen.get("first_output"),
                finished=self._seen.get("finished"),
                returned=self._elapsed(),
                program=exit_.seconds if exit_ is not None else None,
            ),
            job=self.job,
            pod=self._pod_name,
        )

    def _lost(self, message: str, hint: str = "") -> ResultLost:
        return messages.lost(self.job, self._pod_name, self._log.said, message, hint)

    # -- time ---------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return anyio.current_time() - self._began

    def _reach(self, phase: PhaseName, detail: str = "") -> None:
        if phase not in self._seen:
            self._seen[phase] = self._elapsed()
            self._emit(PhaseChanged(phase, self._seen[phase], detail))

"""The I/O around `state.ExecutionState`: one loop applies inputs and carries out their effects."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from .._diagnosis.admission import RELEASE_FIELDS
from .._wire.manifests import CONTAINER
from .._wire.payload import Payload
from .._wire.program import Program
from ..errors import Forbidden, SandboxClosed, SandboxError
from ..kube.attach import AttachConnection
from ..kube.client import KubeClient
from ..kube.resources import EVENTS, JOBS, PODS
from ..result import ExecutionEvent, ExecutionResult
from ..settings import Settings
from . import steps
from .create import Creation
from .facts import no_response
from .joined_chunks import JoinedChunks
from .pod_watch import PodWatch
from .state import ExecutionState

logger = logging.getLogger(__name__)

POLL_TIMEOUT = 5.0
"""How long one poll may take."""
TICK_INTERVAL = 5.0
"""The longest time without an input, so that a suspension is noticed."""
SUSPENDED_AFTER = 0.5
"""If a timer is late by more than this, the client was suspended (closed laptop, paused machine, debugger)."""


class Execution:
    """One program in one pod. `run` is called once.

    Without a program it is a warm pod: `on_ready` is called when its runner waits for a program, and
    `take_over` gives it one. `idle_timeout`: how long the runner waits, in seconds.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        pods: PodWatch,
        settings: Settings,
        program: Program | None,
        session: str,
        new_name: Callable[[], str],
        delete: Callable[[steps.JobAttempt, Execution], None],
        emit: Callable[[ExecutionEvent], None],
        on_ready: Callable[[], None],
        idle_timeout: float,
    ) -> None:
        self.settings = settings
        self.idle_timeout = idle_timeout
        self._is_cleaned_up = False
        self._client = client
        self._pods = pods
        self._program = program
        self._session = session
        self._new_name = new_name
        self._delete = delete
        self._emit = emit
        self._on_ready = on_ready
        self._warm: Execution | None = None
        self._assigned: steps.Assigned | None = None
        self._program_bytes = b""
        self._connection: AttachConnection | None = None
        self._state: ExecutionState | None = None
        self._last: steps.Done | steps.Fail | None = None
        self._job = ""
        # A deque would need more memory than all that is in it: it is usually empty.
        self._inputs: list[steps.Input | JoinedChunks] = []
        self._input_arrived: anyio.Event | None = None
        # The cancel scope of the last task of each kind, and of each connection of the log.
        self._scopes: dict[str, anyio.CancelScope] = {}

    @property
    def attempts(self) -> tuple[steps.JobAttempt, ...]:
        """The Jobs that were created, or may have been."""
        if self._warm is not None:
            return self._warm.attempts
        return tuple(self._state.attempts) if self._state is not None else ()

    @property
    def may_have_run(self) -> bool:
        """Whether the program may have started; final when `run` has returned or raised."""
        if self._warm is not None:
            return self._warm.may_have_run
        return self._state is not None and self._state.may_have_run

    @property
    def is_cleaned_up(self) -> bool:
        """Whether the run has ended and its Jobs are deleted, or deleting them was given up. For any thread."""
        return (self._warm or self)._is_cleaned_up

    def record_cleanup(self) -> None:
        """Record that nothing of this run is left."""
        (self._warm or self)._is_cleaned_up = True

    @property
    def program_digest(self) -> str:
        """The digest of its program: see `Program.digest`."""
        assert self._program is not None
        return self._program.digest(self.settings)

    @property
    def is_ready(self) -> bool:
        """Whether the runner waits for a program, and `take_over` can be called."""
        return self._program is None and self._state is not None and self._state.phase == "waiting"

    async def run(self) -> ExecutionResult:
        """Run the program and return how it ended.

        Raises `StartError` if it did not start, `ResultLost` if its end is unknown, `ApiError` and `NetworkError`
        for errors of the server and the network. In each case the Job's deletion has been handed to `delete` when
        this returns or raises.
        """
        # A run that is already cancelled has nothing to delete.
        await anyio.lowlevel.checkpoint_if_cancelled()
        now = anyio.current_time()
        self._state = ExecutionState(
            self.settings,
            now,
            self._new_name,
            random.random,
            RELEASE_FIELDS if self._client.replays else (),
            has_program=self._program is not None,
        )
        self._creation = self._new_creation(now)
        try:
            async with anyio.create_task_group() as self._tasks:
                last = await self._loop(self._state)
                for kind in tuple(self._scopes):
                    self._stop(kind)
        except BaseException as error:  # noqa: BLE001 - raised, out of its group
            raise unwrap_exception_group(error) from None
        finally:
            self._pods.stop_observing(self._job)
            self._carry_out(self._state.apply(steps.Abandoned(), anyio.current_time()))
            # Both refer to this execution: without this, it waits for the garbage collector.
            del self._creation, self._emit
        if isinstance(last, steps.Fail):
            raise last.error
        return last.result

    def take_over(self, run: Execution) -> None:
        """Run the program of `run`, which was not started, in this warm pod. Raises `PayloadTooLarge`.

        The settings are those of the pod, except for those that a request can change. If the program certainly has
        not started when the pod is lost, it runs in another one, which is created for it as for any other run.
        """
        assert run._program is not None
        self._program_bytes = Payload(run._program, run.settings).attach_request(self.settings.env)
        self._program, self._emit = run._program, run._emit
        self.settings = run.settings
        self._creation = self._new_creation(anyio.current_time())
        run._warm = self
        self._assigned = steps.Assigned(self.settings)
        self._send(self._assigned)

    def _new_creation(self, now: float) -> Creation:
        return Creation(
            self._client,
            self.settings,
            self._program,
            self._session,
            now + self.settings.startup_timeout,
            self._send,
            idle_timeout=self.idle_timeout,
        )

    async def _loop(self, state: ExecutionState) -> steps.Done | steps.Fail:
        """Apply one input after the other until the state returns its last effect."""
        input_: steps.Input | None = steps.Started()
        while True:
            if input_ is None:
                input_ = steps.Tick(max(len(self._pods.pending), 1), self._pods.last_error)
            if self._assigned is not None:
                # Before what has arrived earlier: if that is the end of the pod, the run has to outlive it.
                assigned, self._assigned = self._assigned, None
                self._carry_out(state.apply(assigned, anyio.current_time()))
            self._carry_out(state.apply(input_, anyio.current_time()))
            if self._last is not None:
                return self._last
            input_ = None
            if state.phase != "starting":
                self._pods.pending.discard(self._job)
            elif self._job not in self._pods.pending:
                # The first deadline depends on how many are waiting.
                self._pods.pending.add(self._job)
                continue
            deadline = min(state.next_deadline, anyio.current_time() + TICK_INTERVAL)
            with anyio.CancelScope(deadline=deadline):
                await self._wait_for_input()
            late = anyio.current_time() - deadline
            if late > SUSPENDED_AFTER:
                self._carry_out(state.apply(steps.Resumed(late), anyio.current_time()))
            # Inputs that have arrived come before the timers.
            input_ = self._next_input()

    def _next_input(self) -> steps.Input | None:
        if not self._inputs:
            return None
        input_ = self._inputs.pop(0)
        return input_.take() if isinstance(input_, JoinedChunks) else input_

    def _send(self, input_: steps.Input | JoinedChunks) -> None:
        self._inputs.append(input_)
        if self._input_arrived is not None:
            self._input_arrived.set()

    async def _wait_for_input(self) -> None:
        if self._inputs:
            # Other tasks must make progress, however many inputs there are.
            await anyio.lowlevel.checkpoint()
        else:
            self._input_arrived = anyio.Event()
            await self._input_arrived.wait()

    # -- effects --------------------------------------------------------------------------------------------

    def _carry_out(self, effects: list[steps.Effect]) -> None:
        """Carry out all effects. Then raise what the caller's function for events has raised, if anything."""
        errors: list[Exception] = []
        for effect in effects:
            match effect:
                case steps.CreateJob(name):
                    self._create_job(name)
                case steps.CreateConfigMap(_, uid):
                    self._start("create", self._creation.create_config_map, uid)
                case steps.StopCreating():
                    self._stop("create")
                case steps.OpenLog(number) | steps.OpenAttach(number):
                    self._start(f"log {number}", self._read_log, effect)
                case steps.Ready():
                    self._on_ready()
                case steps.SendRequest(number):
                    self._start("request", self._send_request, number)
                case steps.CloseLog(number):
                    self._stop("request")
                    self._stop(f"log {number}")
                case steps.PollPods() | steps.PollEvents() | steps.PollJob():
                    self._start("poll", self._poll, effect)
                case steps.StopPolling():
                    self._stop("poll")
                case steps.Emit(event):
                    try:
                        self._emit(event)
                    except Exception as error:  # noqa: BLE001 - raised below
                        errors.append(error)
                case steps.Warn(text):
                    self._client.warn_once(text)
                case steps.DeleteJob(attempt):
                    self._delete(attempt, self)
                case steps.Done() | steps.Fail():
                    self._last = effect
        if errors:
            raise errors[0]

    def _create_job(self, name: str) -> None:
        if name != self._job:
            try:
                self._send(steps.JobPrepared(self._creation.prepare(name)))
                self._program_bytes = self._creation.request
            except SandboxError as error:
                self._send(steps.CreateFailed(error, may_have_arrived=False))
                return
            self._pods.stop_observing(self._job)
            self._pods.observe(name, self._send)
            self._job = name
        self._start("create", self._creation.create_job)

    def _start(self, kind: str, call: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a task in the place of the one of the same kind."""
        self._stop(kind)
        self._scopes[kind] = scope = anyio.CancelScope()
        self._tasks.start_soon(self._run_task, kind, scope, call, args, name=f"gke-sandbox {kind} {self._job}")

    async def _run_task(
        self, kind: str, scope: anyio.CancelScope, call: Callable[..., Awaitable[None]], args: tuple[Any, ...]
    ) -> None:
        with scope:
            await call(*args)
        if self._scopes.get(kind) is scope:
            del self._scopes[kind]

    def _stop(self, kind: str) -> None:
        scope = self._scopes.pop(kind, None)
        if scope is not None:
            scope.cancel()

    async def _read_log(self, effect: steps.OpenLog | steps.OpenAttach) -> None:
        number, client, where = effect.number, self._client, (self.settings.namespace, effect.pod)
        try:
            async with (
                client.attach(*where, container=CONTAINER)
                if isinstance(effect, steps.OpenAttach)
                else client.log(*where, container=CONTAINER, follow=True)
            ) as chunks:
                if isinstance(chunks, AttachConnection):
                    self._connection = chunks
                self._send(steps.LogOpened(number))
                joined = JoinedChunks(number, self._send)
                async for chunk in chunks:
                    await joined.add(chunk)
            self._send(steps.LogEnded(number))
        except SandboxError as error:
            logger.debug("the output of pod %s could not be read to its end: %s", effect.pod, error.message)
            self._send(steps.LogEnded(number, error))

    async def _send_request(self, number: int) -> None:
        assert self._connection is not None
        try:
            await self._connection.send(self._program_bytes)
            self._program_bytes = b""
        except SandboxError as error:
            # The runner must see the end of its stdin, and not wait for the rest.
            self._stop(f"log {number}")
            self._send(steps.LogEnded(number, error))

    async def _poll(self, effect: steps.Poll) -> None:
        try:
            late = True
            while late:
                with anyio.move_on_after(POLL_TIMEOUT) as scope:
                    self._send(await self._request(effect))
                    return
                # If the client was suspended, this does not mean that the server is slow.
                late = anyio.current_time() - scope.deadline > SUSPENDED_AFTER
        except SandboxError as error:
            if isinstance(effect, steps.PollEvents) and isinstance(error, Forbidden) and not error.retryable:
                self._client.warn_once(
                    f"{error.message}; without Events the reason why a sandbox does not start may be unknown. "
                    f"{error.hint}"
                )
            else:
                logger.info("a poll failed: %s", error.message)
            self._send(steps.PollFailed(effect.number, error))
        else:
            self._send(steps.PollFailed(effect.number, no_response(effect, self.settings.namespace)))

    async def _request(self, effect: steps.Poll) -> steps.PollResponse:
        number, lists, pending = effect.number, self._pods.lists, self._pods.pending
        if isinstance(effect, steps.PollJob):
            return steps.JobRead(number, await self._client.get(JOBS, self.settings.namespace, effect.job))
        if isinstance(effect, steps.PollPods):
            return steps.PodsListed(number, *await lists.get(PODS, effect.job, effect.job, pending))
        found, _ = await lists.get(EVENTS, effect.about, self._job, pending)
        return steps.EventsListed(number, found)


def closed_during_the_run(execution: Execution) -> SandboxClosed:
    """Return the error of a run that closing the Sandbox has cancelled."""
    return SandboxClosed(
        "the Sandbox was closed while the program ran; its Job is deleted",
        may_have_run=execution.may_have_run,
        hint="Keep the Sandbox open until its runs have finished.",
    )


def unwrap_exception_group(error: BaseException) -> BaseException:
    """Return the first exception of an exception group, or `error` itself if it is not a group.

    The first one is of the task that failed; the other tasks were cancelled because of it.
    """
    while inner := getattr(error, "exceptions", None):  # Python 3.10 has no class for groups.
        error = inner[0]
    return error

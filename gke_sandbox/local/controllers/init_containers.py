"""Init containers and sidecars, which start before the container of their pod. The runtime runs them like it.

https://kubernetes.io/docs/concepts/workloads/pods/init-containers/
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
"""

from __future__ import annotations

import contextlib

import anyio

from ..objects import Json, is_deleting
from ..runtimes.base import ContainerExit, ContainerSpec, ContainerStartError, RunningContainer
from .pod_context import InitContainerFailed, PodContext, PodDeleted, PodRemoved
from .pod_status import ContainerStatus, is_sidecar, running, start_failed, terminated, waiting

FIRST_BACK_OFF, MAX_BACK_OFF = 10.0, 300.0
"""The pause before a sidecar that has ended is started again; doubled each time."""


class InitContainers:
    """Runs the init containers of one pod, and its sidecars until `stop`. Their output is not kept."""

    def __init__(self, context: PodContext) -> None:
        self._context = context
        self._pace = context.pace
        self._scopes: list[anyio.CancelScope] = []

    def stop(self) -> None:
        """Stop the containers that still run."""
        for scope in self._scopes:
            scope.cancel()
        for status in self._context.status.init.values():
            if "running" in status.state:
                since = status.state["running"]["startedAt"]
                self._set_ended(status, ContainerExit(143, "Error"), since)

    async def run(self, container: Json, status: ContainerStatus, spec: ContainerSpec) -> None:
        """Run a container until the next one may start.

        An init container has to succeed, a sidecar has to run and to pass its startup probe. Raises
        `InitContainerFailed`, `PodDeleted`, `PodRemoved`.
        """
        context = self._context
        context.cluster.tasks.start_soon(self._run, container, status, spec)
        while not (status.started if is_sidecar(container) else "terminated" in status.state):
            if is_deleting(context.pod()):
                self.stop()
                raise PodDeleted
            await context.changed.wait()
        if not is_sidecar(container) and not status.ended_with(0):
            raise InitContainerFailed

    async def _run(self, container: Json, status: ContainerStatus, spec: ContainerSpec) -> None:
        """Run a container once, a sidecar again and again."""
        delay = FIRST_BACK_OFF
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            while True:
                status.container_id = self._context.cluster.ids.container_id()
                await self._run_once(container, status, spec)
                if not is_sidecar(container):
                    # A failure is reported together with the phase of the pod.
                    self._context.changed.notify()
                    return
                self._report()
                message = (
                    f"back-off {delay:g}s restarting failed container={spec.name} "
                    f"pod={spec.pod}_{spec.namespace}({spec.pod_uid})"
                )
                status.last_state, status.state = status.state, waiting("CrashLoopBackOff", message)
                self._report()
                await anyio.sleep(delay)
                delay = min(delay * 2, MAX_BACK_OFF)
                status.restarts += 1

    async def _run_once(self, container: Json, status: ContainerStatus, spec: ContainerSpec) -> None:
        try:
            process = await self._context.cluster.runtime.start(spec)
        except ContainerStartError as error:
            stamp = self._context.cluster.calendar.stamp()
            status.state = start_failed(str(error), status.container_id, stamp)
            return
        since = self._context.cluster.calendar.stamp()
        try:
            status.probed = "startupProbe" not in container
            status.state = running(since)
            self._report()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_discard_output, process)
                if not status.probed:
                    delay = container["startupProbe"].get("initialDelaySeconds", 0)
                    tasks.start_soon(self._probe, status, float(delay))
                ended = await process.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await process.aclose()
        await anyio.sleep(self._pace.notice)
        self._set_ended(status, ended, since)

    async def _probe(self, status: ContainerStatus, delay: float) -> None:
        """Let the startup probe succeed after its initial delay."""
        await anyio.sleep(delay)
        status.probed = True
        self._report()

    def _set_ended(self, status: ContainerStatus, ended: ContainerExit, since: str) -> None:
        status.state = terminated(ended, status.container_id, since, self._context.cluster.calendar.stamp())

    def _report(self) -> None:
        with contextlib.suppress(PodRemoved):
            self._context.report()


async def _discard_output(process: RunningContainer) -> None:
    async for _ in process.output():
        pass

"""The kubelet: starts the container of each pod on the node, reports its status, and stops it.

A pod's status changes in the order that was recorded from a real node.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import math

import anyio
from anyio.abc import TaskGroup

from ...kube.quantity import parse_quantity
from ..apiserver.resources import CONFIG_MAPS, PODS
from ..cluster import ClusterState
from ..faults import Evict, Preempt, RunningPodAction, ShutDownNode, StopKubelet
from ..objects import Json, is_deleting
from ..runtimes.base import ContainerExit, ContainerStartError, RunningContainer
from ..store import StoreChange
from .config_maps import ConfigMapReader
from .container_streams import ContainerStreams
from .gc import DeleteOptions, delete
from .logs import ContainerLog
from .pod_context import InitContainerFailed, PodContext, PodDeleted, PodRejected, PodRemoved
from .pod_startup import PodStartup
from .pod_status import LOST_MESSAGE, LOST_RUNNING_MESSAGE, Phase, lost, running, start_failed, terminated, waiting
from .scheduler import preempt


class Kubelet:
    """Runs one worker for each pod on the node."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._config_maps = ConfigMapReader(cluster)
        self._workers: dict[str, PodWorker] = {}
        self._pod_count = 0

    def on_change(self, change: StoreChange) -> None:
        """Handle a change in the store."""
        if change.key.plural == PODS.plural:
            self._on_pod_change(change)
        elif change.key.plural == CONFIG_MAPS.plural:
            self._config_maps.on_change(change)

    def _on_pod_change(self, change: StoreChange) -> None:
        uid = change.object["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            worker.on_change(removed=change.type == "DELETED")
        elif change.type == "MODIFIED" and "nodeName" in change.object["spec"]:
            context = PodContext(self._cluster, change.key, uid)
            startup = PodStartup(context, self._config_maps, self._next_ip())
            self._workers[uid] = PodWorker(context, startup)
            self._cluster.tasks.start_soon(self._run, uid)

    async def _run(self, uid: str) -> None:
        try:
            await self._workers[uid].run()
        finally:
            del self._workers[uid]

    def _next_ip(self) -> str:
        self._pod_count += 1
        return f"10.88.{self._pod_count // 250 % 250}.{self._pod_count % 250 + 2}"


class PodWorker:
    """Takes one pod from ContainerCreating to its final phase, and removes it when it is deleted."""

    def __init__(self, context: PodContext, startup: PodStartup) -> None:
        self._context = context
        self._startup = startup
        self._cluster = context.cluster
        self._pace = context.pace
        self._status = context.status
        self._changed = context.changed
        self._scope = anyio.CancelScope()
        self._log: ContainerLog | None = None
        self._streams: ContainerStreams | None = None
        self._container: RunningContainer | None = None
        self._exit: ContainerExit | None = None
        self._started_at = ""
        self._finished_at = ""

    def on_change(self, removed: bool) -> None:
        """Handle a change of the pod."""
        if removed:
            self._scope.cancel()
        self._changed.notify()

    async def run(self) -> None:
        """Run until the pod is removed."""
        try:
            with self._scope:
                await self._start_and_supervise()
        except PodRemoved:
            return
        finally:
            self._startup.init.stop()
            if self._log is not None:
                self._log.close()
                del self._cluster.logs[self._context.uid]
            if self._streams is not None:
                self._streams.end()
                del self._cluster.streams[self._context.uid]
            if self._container is not None:
                with anyio.CancelScope(shield=True):
                    await self._container.aclose()

    async def _start_and_supervise(self) -> None:
        try:
            spec = await self._startup.run()
        except PodDeleted:
            await self._end_before_start()
            return
        except PodRejected as error:
            await self._reject(error)
            return
        except InitContainerFailed:
            await self._finish("Failed")
            return
        self._status.container_id = self._cluster.ids.container_id()
        self._log = ContainerLog(self._pace.housekeeping)
        self._cluster.logs[self._context.uid] = self._log
        try:
            self._container = await self._cluster.runtime.start(spec)
        except ContainerStartError as error:
            await self._fail_to_start(error, self._log)
        else:
            await self._supervise(self._container, self._log)

    async def _reject(self, error: PodRejected) -> None:
        self._context.record_event("Warning", error.reason, error.message, of_container=False)
        self._status.rejected = True
        self._status.reason, self._status.message = error.reason, f"Pod was rejected: {error.message}"
        await self._finish("Failed")

    async def _fail_to_start(self, error: ContainerStartError, log: ContainerLog) -> None:
        message = str(error)
        log.write(error.log if error.log is not None else message.encode() + b"\n")
        log.close()
        self._context.record_event("Warning", "Failed", f"Error: {message}")
        self._status.state = start_failed(message, self._status.container_id, self._cluster.calendar.stamp())
        self._context.report()
        await anyio.sleep(self._pace.finish)
        await self._finish("Failed")

    async def _supervise(self, container: RunningContainer, log: ContainerLog) -> None:
        stdin_once = bool(self._context.pod()["spec"]["containers"][0].get("stdinOnce"))
        streams = ContainerStreams(container, log, stdin_once=stdin_once)
        self._streams = self._cluster.streams[self._context.uid] = streams
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._copy_output, streams, log)
            tasks.start_soon(self._wait_for_exit, streams)
            try:
                self._context.record_event("Normal", "Started", "Container started")
                self._started_at = self._cluster.calendar.stamp()
                self._status.phase = "Running"
                self._status.state = running(self._started_at)
                self._context.report()
                await self._run_to_end(streams, log, tasks)
            except PodRemoved:
                # Caught inside the task group, which would wrap it in an exception group.
                tasks.cancel_scope.cancel()

    async def _copy_output(self, streams: ContainerStreams, log: ContainerLog) -> None:
        """Copy the container's output to its log, and close the log after the container's exit."""
        await streams.copy()
        log.flush()
        while self._exit is None:
            await self._changed.wait()
        await anyio.sleep(self._pace.log_end)
        log.close()
        await streams.container.aclose()

    async def _wait_for_exit(self, streams: ContainerStreams) -> None:
        self._exit = await streams.container.wait()
        streams.container_ended()
        self._finished_at = self._cluster.calendar.stamp()
        self._changed.notify()

    async def _run_to_end(self, streams: ContainerStreams, log: ContainerLog, tasks: TaskGroup) -> None:
        """Wait for the first cause that ends the pod, and report the end."""
        container = streams.container
        limits = _PodLimits(self._context)
        while self._exit is None:
            if is_deleting(self._context.pod()):
                await self._stop(container, tasks)
                return
            if (violation := limits.violation(log)) is not None:
                await self._terminate(container, tasks, *violation)
                return
            if (stop := limits.kubelet_stop()) is not None:
                await self._stop_kubelet(stop, streams, log)
                continue
            await self._changed.wait_until(limits.next_check())
        if self._exit.reason == "Evicted":
            await self._evict(self._exit.message)
            return
        try:
            await self._context.pause(self._pace.notice)
        except PodDeleted:
            # The kubelet sees the deletion before the container's exit.
            await self._stop(container, tasks)
            return
        self._status.state = self._terminated(self._exit)
        self._context.report()
        await anyio.sleep(self._pace.finish)
        await self._finish("Succeeded" if self._exit.exit_code == 0 else "Failed")

    async def _stop_kubelet(self, stop: StopKubelet, streams: ContainerStreams, log: ContainerLog) -> None:
        """Do nothing while the kubelet is stopped; only the container and its log continue."""
        log.interrupt()
        streams.interrupt()
        await (anyio.sleep_forever() if stop.seconds is None else anyio.sleep(stop.seconds))
        log.readable_from = anyio.current_time() + stop.starting

    async def _stop(self, container: RunningContainer, tasks: TaskGroup) -> None:
        """Stop the container because its pod is being deleted."""
        await anyio.sleep(self._pace.observe)
        self._context.report()
        self._record_killing()
        grace: int | None = None
        while self._exit is None:
            # A second DELETE may have shortened the grace period.
            now: int = self._context.pod()["metadata"].get("deletionGracePeriodSeconds", 0)
            if grace is None or now < grace:
                grace = now
                tasks.start_soon(container.stop, float(grace))
            await self._changed.wait()
        await anyio.sleep(self._pace.stopped)
        self._status.state = self._terminated(self._exit)
        await self._finish("Succeeded" if self._exit.exit_code == 0 else "Failed")

    async def _terminate(self, container: RunningContainer, tasks: TaskGroup, reason: str, message: str) -> None:
        """Stop the container because of its node or its pod's deadline."""
        evicted = reason == "Evicted"
        grace = 0 if evicted else self._context.pod()["spec"]["terminationGracePeriodSeconds"]
        tasks.start_soon(container.stop, float(grace))
        while self._exit is None:
            await self._changed.wait()
        if evicted:
            await self._evict(message)
            return
        self._record_killing()
        self._status.reason, self._status.message = reason, message
        self._status.state = self._terminated(self._exit)
        await self._finish("Failed")

    async def _evict(self, message: str) -> None:
        """Report an eviction: only the pod has the reason, and the container goes back to waiting (recorded)."""
        self._context.record_event("Warning", "Evicted", message, of_container=False)
        self._record_killing()
        self._status.reason, self._status.message = "Evicted", message
        self._status.state = waiting("ContainerCreating")
        self._status.last_state = lost(LOST_RUNNING_MESSAGE)
        self._status.restarts = 1
        self._status.container_id = ""
        await self._finish("Failed")

    async def _end_before_start(self) -> None:
        """Report the end of a pod that is deleted before its container has started."""
        await anyio.sleep(self._pace.observe)
        self._status.state = waiting("ContainerCreating")
        self._context.report()
        await anyio.sleep(self._pace.stopped)
        self._status.state = lost(LOST_MESSAGE)
        await self._finish("Failed")

    def _record_killing(self) -> None:
        name = self._context.pod()["spec"]["containers"][0]["name"]
        self._context.record_event("Normal", "Killing", f"Stopping container {name}")

    def _terminated(self, exit_status: ContainerExit) -> Json:
        return terminated(exit_status, self._status.container_id, self._started_at, self._finished_at)

    async def _finish(self, phase: Phase) -> None:
        """Report the final phase, then remove the pod once it is being deleted."""
        self._status.phase = phase
        self._status.sandbox = False
        self._startup.init.stop()
        self._context.report()
        while True:
            if self._context.pod()["metadata"].get("deletionGracePeriodSeconds"):
                await anyio.sleep(self._pace.remove)
                self._context.pod()
                delete(self._cluster, self._context.key, DeleteOptions(grace=0, uid=self._context.uid))
            await self._changed.wait()


class _PodLimits:
    """The limits of a running pod: its deadline, the size of its log, and faults. Times are the event loop's."""

    def __init__(self, context: PodContext) -> None:
        self._context = context
        started = anyio.current_time()
        pod = context.pod()
        self._deadline = started + float(pod["spec"].get("activeDeadlineSeconds", math.inf))
        limits = pod["spec"]["containers"][0]["resources"].get("limits", {})
        self._storage: str | None = limits.get("ephemeral-storage")
        self._next_size_check = math.inf if self._storage is None else started + context.pace.housekeeping
        key = context.key
        actions = context.cluster.faults.actions(RunningPodAction, "", PODS.plural, key.namespace, key.name)
        self._faults = [(started + action.after, action) for action in actions]

    def next_check(self) -> float:
        """Return the time at which the next limit may be reached."""
        return min([self._deadline, self._next_size_check, *(at for at, _ in self._faults)])

    def kubelet_stop(self) -> StopKubelet | None:
        """Return the fault that stops the kubelet now (once), or None."""
        for each in self._faults:
            at, action = each
            if isinstance(action, StopKubelet) and at <= anyio.current_time():
                self._faults.remove(each)
                return action
        return None

    def violation(self, log: ContainerLog) -> tuple[str, str] | None:
        """Return the reason and message with which the pod ends now, or None."""
        now = anyio.current_time()
        for each in [each for each in self._faults if each[0] <= now]:
            action = each[1]
            if isinstance(action, Evict):
                return "Evicted", action.message
            if isinstance(action, ShutDownNode):
                return "Terminated", action.message
            if isinstance(action, Preempt):
                self._faults.remove(each)
                preempt(self._context.cluster, self._context.key)
        if self._deadline <= now:
            return "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
        if self._storage is not None and self._next_size_check <= now:
            self._next_size_check = now + self._context.pace.housekeeping
            if log.written > parse_quantity(self._storage).value:
                excess = "Pod ephemeral local storage usage exceeds the total limit of containers"
                return "Evicted", f"{excess} {self._storage}. "
        return None

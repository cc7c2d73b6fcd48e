"""The kubelet: starts the container of each pod that has a node, reports on it, and ends it.

The order of what a pod's status shows is the one that was recorded from a real node.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import math

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ...kube.quantity import parse_quantity
from ..apiserver.resources import CONFIG_MAPS, PODS
from ..cluster import ClusterState
from ..faults import Evict, HideConfigMap, Preempt, ShutDownNode, StopKubelet
from ..notify import Notifier
from ..objects import Json, Key, is_deleting
from ..runtimes.base import ContainerExit, ContainerStartError, RunningContainer
from ..store import Change
from .events import EventType
from .gc import DeleteOptions, delete
from .logs import ContainerLog
from .pod_startup import PodDeleted, PodRemoved, Starter
from .pod_status import LOST_MESSAGE, LOST_RUNNING_MESSAGE, Phase, PodStatus, lost, running, terminated, waiting
from .scheduler import preempt


class Kubelet:
    """Runs one worker for each pod on the node."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._workers: dict[str, PodWorker] = {}
        self._hidden: dict[Key, float] = {}
        self._awaited: dict[Key, Notifier] = {}
        self._addresses = 0

    def changed(self, change: Change) -> None:
        """To be called with every change of the store."""
        if change.key.plural == PODS.plural:
            self._pod_changed(change)
        elif change.key.plural == CONFIG_MAPS.plural:
            self._config_map_changed(change)

    def _pod_changed(self, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        worker = self._workers.get(uid)
        if worker is not None:
            worker.wake(gone=change.type == "DELETED")
        elif change.type == "MODIFIED" and "nodeName" in change.object["spec"]:
            worker = self._workers[uid] = PodWorker(self._cluster, self, change.key, uid)
            self._cluster.tasks.start_soon(self._run, worker)

    def _config_map_changed(self, change: Change) -> None:
        key = change.key
        if change.type == "ADDED":
            fault = self._cluster.faults.first(HideConfigMap, key.plural, key.namespace, key.name)
            if fault is not None:
                self._hidden[key] = anyio.current_time() + fault.seconds
                self._cluster.tasks.start_soon(self._show_later, key, fault.seconds)
        elif change.type == "DELETED":
            self._hidden.pop(key, None)
        self._announce(key)

    async def _show_later(self, key: Key, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._announce(key)

    def _announce(self, key: Key) -> None:
        if key in self._awaited:
            self._awaited[key].notify()

    async def _run(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[worker.uid]

    def config_map(self, namespace: str, name: str) -> Json | None:
        """The ConfigMap as the kubelet sees it."""
        key = Key(CONFIG_MAPS.plural, namespace, name)
        if self._hidden.get(key, 0.0) > anyio.current_time():
            return None
        return self._cluster.store.get(key)

    async def await_config_map(self, namespace: str, name: str, seconds: float) -> None:
        """Wait until the ConfigMap can be seen, at most so long."""
        key = Key(CONFIG_MAPS.plural, namespace, name)
        signal = self._awaited.setdefault(key, Notifier())
        with anyio.move_on_after(seconds):
            while self.config_map(namespace, name) is None:
                await signal.wait()
        if not signal.has_waiters:
            self._awaited.pop(key, None)

    def address(self) -> str:
        """The next pod's IP."""
        self._addresses += 1
        return f"10.88.{self._addresses // 250 % 250}.{self._addresses % 250 + 2}"


class PodWorker:
    """Brings one pod from ContainerCreating to its end, and to its removal."""

    def __init__(self, cluster: ClusterState, kubelet: Kubelet, key: Key, uid: str) -> None:
        self.cluster = cluster
        self.kubelet = kubelet
        self.key = key
        self.uid = uid
        self.view = PodStatus()
        self._changed = Notifier()
        self._scope = anyio.CancelScope()
        self._log: ContainerLog | None = None
        self._container: RunningContainer | None = None
        self._exit: ContainerExit | None = None
        self._started_at = ""
        self._finished_at = ""

    def wake(self, gone: bool) -> None:
        if gone:
            self._scope.cancel()
        self._changed.notify()

    async def run(self) -> None:
        try:
            with self._scope:
                await self._live()
        except PodRemoved:
            return
        finally:
            if self._log is not None:
                self._log.close()
                del self.cluster.logs[self.uid]
            if self._container is not None:
                with anyio.CancelScope(shield=True):
                    await self._container.aclose()

    async def _live(self) -> None:
        try:
            spec = await Starter(self).start()
        except PodDeleted:
            await self._abandon()
            return
        self.view.container_id = self.cluster.ids.container_id()
        self._log = ContainerLog(self.cluster.calendar, self.cluster.pace.housekeeping)
        self.cluster.logs[self.uid] = self._log
        try:
            self._container = await self.cluster.runtime.start(spec)
        except ContainerStartError as error:
            await self._failed_to_start(error, self._log)
        else:
            await self._supervise(self._container, self._log)

    # What every step needs.

    def pod(self) -> Json:
        """The pod as it is now. Raises `PodRemoved`."""
        pod = self.cluster.store.get(self.key)
        if pod is None or pod["metadata"]["uid"] != self.uid:
            raise PodRemoved
        return pod

    def report(self) -> None:
        """Write the pod's status as the kubelet sees it."""
        pod = self.pod()
        self.cluster.store.update(self.key, {**pod, "status": self.view.status(pod, self.cluster.calendar)})

    async def pause(self, seconds: float) -> None:
        """Let time pass. Raises `PodDeleted` as soon as the pod is being deleted."""
        await anyio.lowlevel.checkpoint()
        end = anyio.current_time() + seconds
        while not is_deleting(self.pod()):
            if anyio.current_time() >= end:
                return
            await self._changed.wait_until(end)
        raise PodDeleted

    def tell(self, kind: EventType, reason: str, message: str, *, of_container: bool = True) -> None:
        """Record an Event on the pod."""
        pod = self.pod()
        container = pod["spec"]["containers"][0]["name"] if of_container else None
        self.cluster.events.kubelet(pod, kind, reason, message, container)

    # The pod's ways to its end.

    async def _failed_to_start(self, error: ContainerStartError, log: ContainerLog) -> None:
        message = str(error)
        log.write(error.log if error.log is not None else message.encode() + b"\n")
        log.close()
        self.tell("Warning", "Failed", f"Error: {message}")
        epoch = "1970-01-01T00:00:00Z"
        how = ContainerExit(128, "StartError", message)
        self.view.state = terminated(how, self.view.container_id, epoch, self.cluster.calendar.stamp())
        self.report()
        await anyio.sleep(self.cluster.pace.finish)
        await self._end("Failed")

    async def _supervise(self, container: RunningContainer, log: ContainerLog) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pump, container, log)
            tasks.start_soon(self._reap, container)
            try:
                self.tell("Normal", "Started", "Container started")
                self._started_at = self.cluster.calendar.stamp()
                self.view.phase = "Running"
                self.view.state = running(self._started_at)
                self.report()
                await self._run(container, log, tasks)
            except PodRemoved:
                # Inside the task group, so that it does not come out in a group of exceptions.
                tasks.cancel_scope.cancel()

    async def _pump(self, container: RunningContainer, log: ContainerLog) -> None:
        """Everything that the container prints, into its log; and the log's end."""
        async for chunk in container.output():
            log.write(chunk)
        log.flush()
        while self._exit is None:
            await self._changed.wait()
        await anyio.sleep(self.cluster.pace.log_end)
        log.close()
        await container.aclose()

    async def _reap(self, container: RunningContainer) -> None:
        self._exit = await container.wait()
        self._finished_at = self.cluster.calendar.stamp()
        self._changed.notify()

    async def _run(self, container: RunningContainer, log: ContainerLog, tasks: TaskGroup) -> None:
        """Wait for whatever ends the pod first, and see it through."""
        limits = _Limits(self)
        while self._exit is None:
            if is_deleting(self.pod()):
                await self._stop(container, tasks)
                return
            if (why := limits.broken(log)) is not None:
                await self._take_away(container, tasks, *why)
                return
            if (stop := limits.kubelet_stops()) is not None:
                await self._be_away(stop, log)
                continue
            await self._changed.wait_until(limits.next_look())
        if self._exit.reason == "Evicted":
            await self._evicted(self._exit.message)
            return
        try:
            await self.pause(self.cluster.pace.notice)
        except PodDeleted:
            # The kubelet hears of the deletion before it has seen the container's end.
            await self._stop(container, tasks)
            return
        self.view.state = self._terminated(self._exit)
        self.report()
        await anyio.sleep(self.cluster.pace.finish)
        await self._end("Succeeded" if self._exit.exit_code == 0 else "Failed")

    async def _be_away(self, stop: StopKubelet, log: ContainerLog) -> None:
        """Do nothing while the kubelet is stopped; only the container and its log continue."""
        log.interrupt()
        await (anyio.sleep_forever() if stop.seconds is None else anyio.sleep(stop.seconds))
        log.readable_from = anyio.current_time() + stop.starting

    async def _stop(self, container: RunningContainer, tasks: TaskGroup) -> None:
        """End the container because its pod is being deleted."""
        await anyio.sleep(self.cluster.pace.observe)
        self.report()
        self._tell_killing()
        grace: int | None = None
        while self._exit is None:
            # A second deletion may have shortened the time.
            now: int = self.pod()["metadata"].get("deletionGracePeriodSeconds", 0)
            if grace is None or now < grace:
                grace = now
                tasks.start_soon(container.stop, float(grace))
            await self._changed.wait()
        await anyio.sleep(self.cluster.pace.stopped)
        self.view.state = self._terminated(self._exit)
        await self._end("Succeeded" if self._exit.exit_code == 0 else "Failed")

    async def _take_away(self, container: RunningContainer, tasks: TaskGroup, reason: str, message: str) -> None:
        """End the container because the node cannot keep it, or because its pod's time is over."""
        evicted = reason == "Evicted"
        grace = 0 if evicted else self.pod()["spec"]["terminationGracePeriodSeconds"]
        tasks.start_soon(container.stop, float(grace))
        while self._exit is None:
            await self._changed.wait()
        if evicted:
            await self._evicted(message)
            return
        self._tell_killing()
        self.view.reason, self.view.message = reason, message
        self.view.state = self._terminated(self._exit)
        await self._end("Failed")

    async def _evicted(self, message: str) -> None:
        """The container's own state falls back to waiting (recorded); only the pod's tells what happened."""
        self.tell("Warning", "Evicted", message, of_container=False)
        self._tell_killing()
        self.view.reason, self.view.message = "Evicted", message
        self.view.state = waiting("ContainerCreating")
        self.view.last_state = lost(LOST_RUNNING_MESSAGE)
        self.view.restarts = 1
        self.view.container_id = ""
        await self._end("Failed")

    async def _abandon(self) -> None:
        """The pod is being deleted before its container has started."""
        await anyio.sleep(self.cluster.pace.observe)
        self.view.state = waiting("ContainerCreating")
        self.report()
        await anyio.sleep(self.cluster.pace.stopped)
        self.view.state = lost(LOST_MESSAGE)
        await self._end("Failed")

    def _tell_killing(self) -> None:
        name = self.pod()["spec"]["containers"][0]["name"]
        self.tell("Normal", "Killing", f"Stopping container {name}")

    def _terminated(self, how: ContainerExit) -> Json:
        return terminated(how, self.view.container_id, self._started_at, self._finished_at)

    async def _end(self, phase: Phase) -> None:
        """Report the last phase; take the pod away if it is being deleted, else wait until it is."""
        self.view.phase = phase
        self.view.sandbox = False
        self.report()
        while True:
            if self.pod()["metadata"].get("deletionGracePeriodSeconds"):
                await anyio.sleep(self.cluster.pace.remove)
                self.pod()
                delete(self.cluster, self.key, DeleteOptions(grace=0, uid=self.uid))
            await self._changed.wait()


class _Limits:
    """What may end a running pod from outside: its deadline, the size of its log, faults.

    All times are points in the event loop's time.
    """

    def __init__(self, worker: PodWorker) -> None:
        self._worker = worker
        self._housekeeping = worker.cluster.pace.housekeeping
        started = anyio.current_time()
        pod = worker.pod()
        self._deadline = started + float(pod["spec"].get("activeDeadlineSeconds", math.inf))
        limits = pod["spec"]["containers"][0]["resources"].get("limits", {})
        self._storage: str | None = limits.get("ephemeral-storage")
        self._look = math.inf if self._storage is None else started + self._housekeeping
        key = worker.key
        faults = list(worker.cluster.faults.actions_for("run", "", PODS.plural, key.namespace, key.name))
        kinds = (Evict, Preempt, ShutDownNode)
        self._faults = [(started + fault.after, fault) for fault in faults if isinstance(fault, kinds)]
        self._stops = [(started + fault.after, fault) for fault in faults if isinstance(fault, StopKubelet)]

    def next_look(self) -> float:
        """When something may be due."""
        return min([self._deadline, self._look, *(at for at, _ in self._faults), *(at for at, _ in self._stops)])

    def kubelet_stops(self) -> StopKubelet | None:
        """Return the fault that stops the kubelet now, once; None if there is none."""
        due = next((each for each in self._stops if each[0] <= anyio.current_time()), None)
        if due is None:
            return None
        self._stops.remove(due)
        return due[1]

    def broken(self, log: ContainerLog) -> tuple[str, str] | None:
        """The reason and message with which the pod is ended now, None if it is not."""
        now = anyio.current_time()
        due = [fault for at, fault in self._faults if at <= now]
        self._faults = [(at, fault) for at, fault in self._faults if at > now]
        for fault in due:
            if isinstance(fault, Evict):
                return "Evicted", fault.message
            if isinstance(fault, ShutDownNode):
                return "Terminated", fault.message
            preempt(self._worker.cluster, self._worker.key)
        if self._deadline <= now:
            return "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
        if self._storage is not None and self._look <= now:
            self._look = now + self._housekeeping
            if log.written > parse_quantity(self._storage).value:
                what = "Pod ephemeral local storage usage exceeds the total limit of containers"
                return "Evicted", f"{what} {self._storage}. "
        return None

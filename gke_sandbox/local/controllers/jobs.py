"""The Job controller: creates pods, counts how they end, and sets the Job's conditions.

https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import math

import anyio
import anyio.lowlevel

from ..apiserver.admission import admit_pod
from ..apiserver.defaults import JOB_FINALIZER
from ..apiserver.errors import StatusError
from ..apiserver.resources import JOBS, PODS
from ..cluster import ClusterState
from ..faults import EndJob
from ..notify import Notifier
from ..objects import Json, Key, controller_uid, is_deleting, with_metadata
from ..store import StoreChange
from .gc import DeleteOptions, delete

MAX_CREATE_RETRY = 60.0
# The controller replaces the first failed pod after 10 s, the next after 20 s, and so on up to 10 minutes.
FIRST_BACKOFF = 10.0
MAX_BACKOFF = 600.0

_DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_BACKOFF_LIMIT = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
_COMPLETED = ("CompletionsReached", "Reached expected number of succeeded pods")
_SUSPENDED = ("JobSuspended", "Job suspended")
_RESUMED = ("JobResumed", "Job resumed")


class JobController:
    """Runs one worker for each Job."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._workers: dict[str, _JobWorker] = {}

    def on_change(self, change: StoreChange) -> None:
        """Handle a change in the store."""
        if change.key.plural == JOBS.plural:
            uid = change.object["metadata"]["uid"]
            if change.type == "ADDED":
                worker = _JobWorker(self._cluster, change.key, uid)
                self._workers[uid] = worker
                self._cluster.tasks.start_soon(self._run, worker)
            elif uid in self._workers:
                self._workers[uid].schedule(anyio.current_time() + self._cluster.pace.job_sync)
        elif change.key.plural == PODS.plural:
            owner = controller_uid(change.object)
            if owner in self._workers:
                self._workers[owner].schedule(anyio.current_time() + self._cluster.pace.job_batch)

    async def _run(self, worker: _JobWorker) -> None:
        await worker.run()
        del self._workers[worker.uid]


class _JobWorker:
    """Manages one Job and its pods until the Job is removed."""

    def __init__(self, cluster: ClusterState, key: Key, uid: str) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._key = key
        self.uid = uid
        self._changed = Notifier()
        self._due = anyio.current_time() + cluster.pace.job_sync
        self._started: float | None = None
        self._start_stamp: str | None = None
        self._finished: float | None = None
        self._create_failures = 0
        self._next_create = 0.0
        fault = cluster.faults.first(EndJob, key)
        self._ends_after = math.inf if fault is None else fault.after

    def schedule(self, at: float) -> None:
        """Sync the Job at this time of the event loop, or earlier if that is already scheduled."""
        self._due = min(self._due, at)
        self._changed.notify()

    async def run(self) -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            while self._due > anyio.current_time():
                await self._changed.wait_until(self._due)
            self._due = math.inf
            job = self._store.get(self._key)
            if job is None or job["metadata"]["uid"] != self.uid:
                for pod in self._pods():
                    _release(self._cluster, pod)
                return
            self.schedule(self._sync(job))

    def _pods(self) -> list[Json]:
        pods = (self._store.get(key) for key in self._store.dependents(self.uid) if key.plural == PODS.plural)
        return [pod for pod in pods if pod is not None]

    def _sync(self, job: Json) -> float:
        """Bring the Job up to date. Return the time of the next sync if nothing changes until then."""
        if self._finished is not None:
            return self._expire(job)
        if job["spec"]["suspend"]:
            self._suspend(job)
            return math.inf
        job = self._resume(job)
        now = anyio.current_time()
        if self._started is None:
            # The deadline counts from startTime, which has whole seconds, so it can be up to a second early.
            self._started = now - self._cluster.calendar.now().microsecond / 1_000_000
            self._start_stamp = self._cluster.calendar.stamp()
        job = self._count(job)
        pods = [pod for pod in self._pods() if _is_active(pod)]
        condition = self._terminal_condition(job)
        if condition is None:
            self._create_missing(job, pods, now)
        else:
            job = self._fail_job(job, condition, pods)
        self._report(condition)
        if self._finished is not None:
            return self._expire(self._store.get(self._key) or job)
        if condition is not None:
            return math.inf
        return min(self._deadline(job), self._next_create if self._next_create > now else math.inf)

    def _deadline(self, job: Json) -> float:
        started = math.inf if self._started is None else self._started
        return started + min(self._ends_after, float(job["spec"].get("activeDeadlineSeconds", math.inf)))

    def _count(self, job: Json) -> Json:
        """Count the pods that have ended, and remove their finalizers."""
        ended = [
            pod
            for pod in self._pods()
            if JOB_FINALIZER in pod["metadata"].get("finalizers", ()) and (_succeeded(pod) or _failed(pod))
        ]
        if not ended:
            return job
        for pod in ended:
            _release(self._cluster, pod)
        status = job["status"]
        succeeded = status.get("succeeded", 0) + sum(_succeeded(pod) for pod in ended)
        failed = status.get("failed", 0) + sum(not _succeeded(pod) for pod in ended)
        if failed > status.get("failed", 0):
            self._next_create = anyio.current_time() + min(FIRST_BACKOFF * 2 ** (failed - 1), MAX_BACKOFF)
        return self._set_status(
            job, uncountedTerminatedPods={}, succeeded=succeeded or None, failed=failed or None
        )

    def _terminal_condition(self, job: Json) -> tuple[str, str, str] | None:
        """Return the condition that ends the Job, with its reason and message, or None."""
        for condition in job["status"].get("conditions", ()):
            if condition["type"] in ("FailureTarget", "SuccessCriteriaMet"):
                return condition["type"], condition["reason"], condition["message"]
        spec, status = job["spec"], job["status"]
        if status.get("failed", 0) > spec["backoffLimit"]:
            return ("FailureTarget", *_BACKOFF_LIMIT)
        if anyio.current_time() >= self._deadline(job):
            return ("FailureTarget", *_DEADLINE)
        done = status.get("succeeded", 0) >= spec["completions"]
        return ("SuccessCriteriaMet", *_COMPLETED) if done else None

    def _create_missing(self, job: Json, active: list[Json], now: float) -> None:
        if is_deleting(job) or now < self._next_create:
            return
        spec = job["spec"]
        wanted: int = min(spec["parallelism"], spec["completions"] - job["status"].get("succeeded", 0))
        for _ in range(wanted - len(active)):
            if not self._create_pod(job):
                return

    def _create_pod(self, job: Json) -> bool:
        metadata, template = job["metadata"], job["spec"]["template"]
        owner = {
            "apiVersion": JOBS.api_version,
            "kind": JOBS.kind,
            "name": metadata["name"],
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        pod: Json = {
            "kind": PODS.kind,
            "apiVersion": PODS.api_version,
            "metadata": {
                **template["metadata"],
                "generateName": f"{metadata['name']}-",
                "namespace": metadata["namespace"],
                "ownerReferences": [owner],
                "finalizers": [*template["metadata"].get("finalizers", ()), JOB_FINALIZER],
            },
            "spec": template["spec"],
        }
        try:
            stored = self._store.create(PODS, admit_pod(self._cluster, pod))
        except StatusError as error:
            message = f"Error creating: {error.message}"
            self._cluster.events.job_controller(job, "Warning", "FailedCreate", message)
            delay = self._cluster.pace.create_retry * 2**self._create_failures
            self._next_create = anyio.current_time() + min(delay, MAX_CREATE_RETRY)
            self._create_failures += 1
            return False
        self._create_failures = 0
        message = f"Created pod: {stored['metadata']['name']}"
        self._cluster.events.job_controller(job, "Normal", "SuccessfulCreate", message)
        return True

    def _fail_job(self, job: Json, condition: tuple[str, str, str], active: list[Json]) -> Json:
        """Add the condition that ends the Job, and delete the pods that still run."""
        job = self._add_condition(job, condition)
        self._delete_pods(job, active)
        return self._count(job)

    def _delete_pods(self, job: Json, pods: list[Json]) -> None:
        for pod in pods:
            metadata = pod["metadata"]
            delete(self._cluster, Key(PODS.plural, metadata["namespace"], metadata["name"]), DeleteOptions())
            message = f"Deleted pod: {metadata['name']}"
            self._cluster.events.job_controller(job, "Normal", "SuccessfulDelete", message)

    def _report(self, condition: tuple[str, str, str] | None) -> None:
        """Update the counts, and add the final condition when the last pod has ended."""
        job = self._store.get(self._key)
        if job is None:
            return
        pods = self._pods()
        active = [pod for pod in pods if _is_active(pod)]
        terminating = [pod for pod in pods if is_deleting(pod) and not _has_ended(pod)]
        ready = sum(_is_ready(pod) for pod in active)
        job = self._set_status(
            job,
            startTime=self._start_stamp,
            active=len(active) or None,
            terminating=len(terminating),
            uncountedTerminatedPods={},
            ready=ready,
        )
        if condition is None or active or terminating:
            return
        kind, reason, message = condition
        complete = kind == "SuccessCriteriaMet"
        if complete:
            job = self._set_status(job, completionTime=self._cluster.calendar.stamp())
        self._add_condition(job, ("Complete" if complete else "Failed", reason, message))
        if complete:
            self._cluster.events.job_controller(job, "Normal", "Completed", "Job completed")
        else:
            self._cluster.events.job_controller(job, "Warning", reason, message)
        self._finished = anyio.current_time()

    def _suspend(self, job: Json) -> None:
        conditions = [one["type"] for one in job["status"].get("conditions", ())]
        if "Suspended" not in conditions:
            job = self._add_condition(job, ("Suspended", *_SUSPENDED))
            self._cluster.events.job_controller(job, "Normal", "Suspended", _SUSPENDED[1])
        # When it resumes, its time starts again, and its pods are not counted.
        self._started = self._start_stamp = None
        active = [pod for pod in self._pods() if _is_active(pod)]
        for pod in active:
            _release(self._cluster, pod)
        self._delete_pods(job, active)
        self._report(None)

    def _resume(self, job: Json) -> Json:
        """Update the condition of a Job that is not suspended any more."""
        conditions = job["status"].get("conditions", [])
        if not any(one["type"] == "Suspended" and one["status"] == "True" for one in conditions):
            return job
        reason, message = _RESUMED
        resumed = {"status": "False", "reason": reason, "message": message}
        self._cluster.events.job_controller(job, "Normal", "Resumed", message)
        return self._set_status(
            job, conditions=[{**one, **resumed} if one["type"] == "Suspended" else one for one in conditions]
        )

    def _expire(self, job: Json) -> float:
        """Delete a finished Job after its ttlSecondsAfterFinished.

        https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/
        """
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None or self._finished is None or is_deleting(job):
            return math.inf
        if anyio.current_time() < self._finished + float(seconds):
            return self._finished + float(seconds)
        delete(self._cluster, self._key, DeleteOptions("Foreground", uid=self.uid))
        return math.inf

    def _add_condition(self, job: Json, condition: tuple[str, str, str]) -> Json:
        kind, reason, message = condition
        conditions = job["status"].get("conditions", [])
        if any(one["type"] == kind for one in conditions):
            return job
        stamp = self._cluster.calendar.stamp()
        added = {
            "type": kind,
            "status": "True",
            "lastProbeTime": stamp,
            "lastTransitionTime": stamp,
            "reason": reason,
            "message": message,
        }
        return self._set_status(job, conditions=[*conditions, added])

    def _set_status(self, job: Json, **changes: object) -> Json:
        status = {**job["status"], **changes}
        status = {name: value for name, value in status.items() if value is not None}
        return self._store.update(self._key, {**job, "status": status})


def _release(cluster: ClusterState, pod: Json) -> None:
    """Remove the tracking finalizer."""
    metadata = pod["metadata"]
    kept = [one for one in metadata.get("finalizers", ()) if one != JOB_FINALIZER]
    key = Key(PODS.plural, metadata["namespace"], metadata["name"])
    cluster.store.update(key, with_metadata(pod, finalizers=kept or None))


def _succeeded(pod: Json) -> bool:
    return bool(pod["status"]["phase"] == "Succeeded")


def _failed(pod: Json) -> bool:
    # A pod that is being deleted counts as failed.
    return pod["status"]["phase"] == "Failed" or is_deleting(pod)


def _has_ended(pod: Json) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def _is_active(pod: Json) -> bool:
    return not _has_ended(pod) and not is_deleting(pod)


def _is_ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

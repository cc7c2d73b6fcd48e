"""How long each step of the control plane and of the kubelet takes, in seconds.

The default is for use: every step takes no time, so that a run on the embedded cluster costs what its
container costs. `Pace.recorded()` is for tests on a clock that jumps: it has the times of the real server
whose answers the recordings hold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds, from the step before."""

    answer: float = 0.0
    """From a request to its being carried out and answered."""
    job_sync: float = 0.0
    """From a change to the Job controller's doing something about it."""
    job_batch: float = 0.0
    """The same, from a change of one of its pods: the controller collects those."""
    schedule: float = 0.0
    """From a pod's creation to its having a node."""
    accept: float = 0.0
    """From there to the kubelet's first status, ContainerCreating."""
    mount: float = 0.0
    """What volumes add: the kubelet looks at a pod's mounts every 300 ms."""
    sandbox: float = 0.0
    """From ContainerCreating (and mounted volumes) to the pod's sandbox."""
    start: float = 0.0
    """From the sandbox to the container's being started and Running."""
    config_wait: float = 0.35
    """How long the kubelet waits for a ConfigMap that is not there, before it says so for the first time.

    A real kubelet does not wait; it is busy with the sandbox for so long, which has the same effect.
    """
    config_retry: float = 0.1
    """From CreateContainerConfigError to the next try."""
    mount_retry: float = 0.1
    """From a first FailedMount to the next try; it doubles each time, up to 122 s."""
    image_backoff: float = 0.1
    """From ErrImagePull to ImagePullBackOff."""
    notice: float = 0.0
    """From a container's end to its being seen in the pod's status."""
    finish: float = 0.0
    """From there to the pod's phase Succeeded or Failed."""
    log_end: float = 0.0
    """From a container's end to the end of its followed log."""
    observe: float = 0.0
    """From a pod's deletionTimestamp to the kubelet's acting on it."""
    stopped: float = 0.0
    """From the end of a container that was stopped to its pod's phase."""
    remove: float = 0.0
    """From that phase to the removal of a pod that is being deleted."""
    collect: float = 0.0
    """From an owner's removal to the garbage collector's deleting what it owned."""
    create_retry: float = 1.0
    """From a pod that was refused to the Job controller's next try; it doubles each time, up to 60 s."""
    housekeeping: float = 10.0
    """How often the kubelet looks at the sizes of logs: for rotation, and for eviction."""

    @classmethod
    def recorded(cls) -> Pace:
        """As measured on Kubernetes 1.36 with gVisor, one node, images present."""
        return cls(
            answer=0.003,
            job_sync=0.01,
            job_batch=1.0,
            schedule=0.006,
            accept=0.013,
            mount=0.37,
            sandbox=0.33,
            start=0.26,
            config_wait=0.0,
            config_retry=13.1,
            mount_retry=0.5,
            image_backoff=11.8,
            notice=0.8,
            finish=1.3,
            log_end=0.9,
            observe=0.015,
            stopped=0.43,
            remove=0.45,
            collect=0.02,
            create_retry=1.0,
        )

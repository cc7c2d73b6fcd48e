"""The latency of each step of the control plane and the kubelet, in seconds.

By default all steps take no time, so that a run on the embedded cluster takes only as long as its container.
`Pace.recorded()` has the times that were measured on a real server, for tests with a mock clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The latency of each step, in seconds."""

    response: float = 0.0
    """From a request to its response."""
    job_sync: float = 0.0
    """From a change of a Job to the Job controller's action."""
    job_batch: float = 0.0
    """From a change of a pod to the Job controller's action; the controller batches these changes."""
    schedule: float = 0.0
    """From the creation of a pod to its binding to the node."""
    accept: float = 0.0
    """From the binding to the kubelet's first status, ContainerCreating."""
    mount: float = 0.0
    """The additional time for volumes: the kubelet checks the mounts of a pod every 300 ms."""
    sandbox: float = 0.0
    """From ContainerCreating (and mounted volumes) to the pod sandbox."""
    start: float = 0.0
    """From the pod sandbox to the start of the container."""
    config_wait: float = 0.35
    """How long the kubelet waits for a missing ConfigMap before it reports an error for the first time.

    A real kubelet does not wait, but needs about this time for the sandbox.
    """
    config_retry: float = 0.1
    """From CreateContainerConfigError to the next attempt."""
    mount_retry: float = 0.1
    """From the first FailedMount to the next attempt; doubled each time, up to 122 s."""
    image_backoff: float = 0.1
    """From ErrImagePull to ImagePullBackOff."""
    notice: float = 0.0
    """From the exit of a container to its terminated state in the pod's status."""
    finish: float = 0.0
    """From the terminated state to the phase Succeeded or Failed."""
    log_end: float = 0.0
    """From the exit of a container to the end of its followed log."""
    observe: float = 0.0
    """From the deletionTimestamp of a pod to the kubelet's action."""
    stopped: float = 0.0
    """From the exit of a stopped container to the final phase of its pod."""
    remove: float = 0.0
    """From the final phase of a pod that is being deleted to its removal."""
    collect: float = 0.0
    """From the removal of an owner to the deletion of its dependents."""
    create_retry: float = 1.0
    """From a rejected pod to the Job controller's next attempt; doubled each time, up to 60 s."""
    housekeeping: float = 10.0
    """The interval at which the kubelet checks the sizes of logs, for rotation and eviction."""

    @classmethod
    def recorded(cls) -> Pace:
        """Return the times measured on Kubernetes 1.36 with gVisor, one node, images present."""
        return cls(
            response=0.003,
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

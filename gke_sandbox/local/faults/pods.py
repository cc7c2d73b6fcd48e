"""Faults in the lifecycle of a Job or pod."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .plan import Action


class RunningPodAction(Action):
    """A fault of a running pod."""

    after: float
    """Seconds from the start of the container."""


@dataclass(frozen=True)
class EndJob(Action):
    """Make the Job reach its deadline, regardless of its activeDeadlineSeconds."""

    after: float
    """Seconds from the start of the Job."""


@dataclass(frozen=True)
class RefusePod(Action):
    """Reject the pod that the Job controller creates. Only an Event on the Job shows it."""

    message: str
    """The text after ``pods "..." is forbidden:``."""

    @classmethod
    def quota_exceeded(cls) -> RefusePod:
        """The ResourceQuota is used up."""
        return cls("exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5")

    @classmethod
    def runtime_class_missing(cls, name: str = "gvisor") -> RefusePod:
        """The RuntimeClass does not exist."""
        return cls(f'pod rejected: RuntimeClass "{name}" not found')

    @classmethod
    def pod_security(cls, container: str = "code-runner") -> RefusePod:
        """The namespace enforces the restricted Pod Security Standard."""
        return cls(
            'violates PodSecurity "restricted:latest": seccompProfile (pod or container '
            f'"{container}" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
        )


@dataclass(frozen=True)
class Mutate(Action):
    """A mutating admission policy: `change` edits the Job or the pod in place, with its defaults.

    Defaults are set again afterwards, and the object is validated. Give `Match` a resource: ``jobs`` or ``pods``.
    https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
    """

    change: Callable[[dict[str, Any]], object]
    """Called with the object as decoded JSON; its return value is ignored."""


_ONLY_NODE = (
    "0/1 nodes are available: 1 {}. no new claims to deallocate, preemption: 0/1 nodes are available: 1 "
    "Preemption is not helpful for scheduling."
)


@dataclass(frozen=True)
class NoNode(Action):
    """Keep the pod Unschedulable."""

    seconds: float | None = None
    """How long, in seconds; None for as long as the pod exists."""
    message: str = _ONLY_NODE.format("node(s) didn't match Pod's node affinity/selector")
    """The scheduler's message in the pod's PodScheduled condition."""
    autoscaler: tuple[str, str] | None = None
    """Reason and message of the Event that the cluster autoscaler adds.
    https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
    """

    @classmethod
    def scaling_up(cls, seconds: float | None) -> NoNode:
        """The autoscaler adds a node, which takes `seconds`."""
        message = "pod triggered scale-up: [{gvisor-pool 0->1 (max: 3)}]"
        return cls(seconds, autoscaler=("TriggeredScaleUp", message))

    @classmethod
    def cannot_scale_up(cls) -> NoNode:
        """The autoscaler cannot add a node that fits the pod."""
        message = "pod didn't trigger scale-up: 1 node(s) didn't match Pod's node affinity/selector"
        return cls(autoscaler=("NotTriggerScaleUp", message))

    @classmethod
    def tainted(cls, key: str, value: str = "", seconds: float | None = None) -> NoNode:
        """The only node has a taint, for example ``node.kubernetes.io/disk-pressure``, for `seconds`.

        Since Kubernetes 1.34.2 the scheduler's message does not contain the taint; pass "" as the key for that.
        """
        taint = f"node(s) had untolerated taint {{{key}: {value}}}" if key else "node(s) had untolerated taint(s)"
        return cls(seconds, _ONLY_NODE.format(taint))

    @classmethod
    def cordoned(cls, seconds: float | None = None) -> NoNode:
        """The only node is cordoned for `seconds`."""
        return cls(seconds, _ONLY_NODE.format("node(s) were unschedulable"))


@dataclass(frozen=True)
class RejectPod(Action):
    """Reject the pod on its node, before anything of it starts: the kubelet checks each pod again.

    https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-conditions
    """

    reason: str
    """The reason of the pod: ``Evicted``, ``OutOfcpu``, ..."""
    message: str
    """The text after ``Pod was rejected:``."""

    @classmethod
    def pressure(cls, condition: str = "DiskPressure") -> RejectPod:
        """The node has a condition: ``DiskPressure``, ``MemoryPressure`` or ``PIDPressure``."""
        return cls("Evicted", f"The node had condition: [{condition}]. ")

    @classmethod
    def out_of_cpu(cls) -> RejectPod:
        """Other pods have taken the CPU of the node since the pod was scheduled."""
        return cls("OutOfcpu", "Node didn't have enough resource: cpu, requested: 200, used: 1900, capacity: 2000")


@dataclass(frozen=True)
class NoPodSandbox(Action):
    """Fail to create the pod sandbox; the kubelet retries. Only Events show it."""

    message: str
    """The message of the Event."""
    retry: float = 12.0
    """Seconds between two attempts."""

    @classmethod
    def no_handler(cls, handler: str = "runsc") -> NoPodSandbox:
        """The containerd of the node has no runtime for the handler of the RuntimeClass."""
        return cls(
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
            f'no runtime for "{handler}" is configured'
        )


@dataclass(frozen=True)
class BadImage(Action):
    """Fail to pull the image: ErrImagePull, then ImagePullBackOff."""

    message: str | None = None
    """The runtime's message; None for that of a host that does not exist."""


@dataclass(frozen=True)
class HideConfigMap(Action):
    """Hide a new ConfigMap from the kubelet for a while."""

    seconds: float
    """Seconds from the creation of the ConfigMap."""


@dataclass(frozen=True)
class Evict(RunningPodAction):
    """Evict the running pod from its node."""

    after: float
    """Seconds from the start of the container."""
    message: str = 'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi". '
    """The pod's status message."""


@dataclass(frozen=True)
class Preempt(RunningPodAction):
    """Make the scheduler delete the running pod in favour of one with a higher priority."""

    after: float
    """Seconds from the start of the container."""


@dataclass(frozen=True)
class ShutDownNode(RunningPodAction):
    """Shut down the node of the running pod, as happens to Spot nodes.

    https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/
    """

    after: float
    """Seconds from the start of the container."""
    message: str = "Pod was terminated in response to imminent node shutdown."
    """The pod's status message."""


@dataclass(frozen=True)
class StopKubelet(RunningPodAction):
    """Stop the kubelet of a running pod, while the container continues.

    Until the kubelet starts again, the pod's status does not change, followed logs end, attached connections
    break, and requests for the log and to attach get 500. Just after its start it does not serve these requests
    yet and responds with 404 (recorded for ``pods/log``).
    """

    after: float
    """Seconds from the start of the container until the kubelet stops."""
    seconds: float | None
    """Seconds until the kubelet starts again; None if it never does."""
    starting: float = 0.9
    """Seconds after its start without logs."""

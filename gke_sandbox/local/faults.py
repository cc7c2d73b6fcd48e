"""Faults of the embedded cluster, to test how your code handles failures without a real cluster.

A `Fault` combines an action (what goes wrong), a `Match` (for which requests or pods) and a count (how often).
A `FaultPlan` holds the faults of one cluster and counts how often each has occurred. You can add faults while
the cluster runs::

    cluster = LocalTransport(runtime, faults=FaultPlan(
        Fault(Respond.too_many_requests(retry_after=1), Match("create", "jobs"), times=2),
        Fault(Drop(), Match("create", "configmaps")),
        Fault(ExpireWatch(), Match("watch", "pods"), times=None),
    ))

Faults apply in the order in which they were added; every fault that matches and is not used up applies. Actions
are plain values. They act on a request, on a response body, on a watch, on an attached connection, or on the
lifecycle of a pod or Job.
docs/faults.md has an example of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .fault_plan import Action as Action
from .fault_plan import Fault as Fault
from .fault_plan import FaultPlan as FaultPlan
from .fault_plan import Match as Match

# Requests, response bodies and watches.


class RequestAction(Action):
    """A fault of a request."""


@dataclass(frozen=True)
class BodyAction(Action):
    """A fault of a response body."""

    after: int = 0
    """The number of bytes that are still delivered."""


class WatchAction(Action):
    """A fault of a watch."""


@dataclass(frozen=True)
class Refuse(RequestAction):
    """Refuse the connection: the client gets httpx.ConnectError and nothing is sent."""


@dataclass(frozen=True)
class Drop(RequestAction):
    """Break the connection before a response arrives: the client gets httpx.ReadError."""

    carried_out: bool = True
    """Whether the server still processes the request."""


@dataclass(frozen=True)
class Delay(RequestAction):
    """Delay the response. A shorter client timeout expires first."""

    seconds: float
    """The length of the delay, in seconds."""
    at: Literal["connect", "request", "response"] = "request"
    """When to wait: before the connection is established, before the request is processed, or after it."""


@dataclass(frozen=True)
class Respond(RequestAction):
    """Send this response instead of the real one."""

    code: int
    """The HTTP status code."""
    reason: str
    """The `reason` of the Status, such as ``AlreadyExists``."""
    message: str
    """The `message` of the Status."""
    retry_after: int | None = None
    """The Retry-After header, in seconds; None for no header."""
    text: str | None = None
    """Send this plain text, as proxies do, instead of a Status."""
    carried_out: bool = False
    """Whether the server still processes the request (a 504 after the work was done)."""
    kind: str = ""
    """The ``details.kind`` of the Status."""

    @classmethod
    def unauthorized(cls) -> Respond:
        """Return 401: the credentials are missing, wrong or expired."""
        return cls(401, "Unauthorized", "Unauthorized")

    @classmethod
    def too_many_requests(cls, retry_after: int | None = 1) -> Respond:
        """Return 429 in plain text, as API Priority and Fairness does.

        https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
        """
        message = "Too many requests, please try again later."
        return cls(429, "TooManyRequests", message, retry_after, text=message + "\n")

    @classmethod
    def internal_error(cls, carried_out: bool = False) -> Respond:
        """Return 500: etcd did not respond."""
        message = "Internal error occurred: etcdserver: request timed out"
        return cls(500, "InternalError", message, carried_out=carried_out)

    @classmethod
    def unavailable(cls, retry_after: int | None = None) -> Respond:
        """Return 503: the API server is starting or overloaded."""
        message = "the server is currently unable to handle the request"
        return cls(503, "ServiceUnavailable", message, retry_after)

    @classmethod
    def timed_out(cls, carried_out: bool = True) -> Respond:
        """Return 504: the API server did not finish the request in time."""
        message = "Timeout: request did not complete within requested timeout - context deadline exceeded"
        return cls(504, "Timeout", message, carried_out=carried_out)

    @classmethod
    def quota_conflict(cls, quota: str = "gke-sandbox") -> Respond:
        """Return 409 Conflict for a POST: the server could not update the ResourceQuota, and created nothing.

        It happens when many objects are created at once. https://github.com/kubernetes/kubernetes/issues/67761
        """
        message = (
            f'Operation cannot be fulfilled on resourcequotas "{quota}": the object has been modified; please '
            "apply your changes to the latest version and try again"
        )
        return cls(409, "Conflict", message)

    @classmethod
    def bad_gateway(cls) -> Respond:
        """Return 502 in HTML, as a load balancer in front of the API server does."""
        return cls(502, "", "", text="<html><head><title>502 Bad Gateway</title></head></html>\n")


@dataclass(frozen=True)
class Forbid(RequestAction):
    """Respond with 403: the caller lacks the permission for the request."""


@dataclass(frozen=True)
class CutBody(BodyAction):
    """End the response body early."""

    clean: bool = False
    """End the body normally instead of with httpx.ReadError."""


@dataclass(frozen=True)
class StallBody(BodyAction):
    """Stop sending the response body, and keep the connection open."""


@dataclass(frozen=True)
class GarbleBody(BodyAction):
    """Replace the rest of the response body, then end it."""

    garbage: bytes = b"\x00<not json>"
    """The bytes that follow."""


@dataclass(frozen=True)
class ExpireWatch(WatchAction):
    """Respond to a watch with 410: its resourceVersion is too old."""

    status: bool = False
    """Send 410 as the response itself. A real server always sends an ERROR event, the default."""
    after: int = 0
    """The number of events that come before the ERROR event."""


@dataclass(frozen=True)
class EndWatch(WatchAction):
    """End a watch normally, as a restarting API server does."""

    after: int = 0
    """The number of events that are delivered."""


@dataclass(frozen=True)
class OmitEvents(WatchAction):
    """Leave out events of a watch."""

    first: int = 0
    """The index of the first omitted event (0 is the first event; bookmarks count)."""
    count: int = 1
    """The number of omitted events."""


@dataclass(frozen=True)
class RepeatEvents(WatchAction):
    """Deliver events of a watch twice."""

    first: int = 0
    """The index of the first repeated event."""
    count: int = 1
    """The number of repeated events."""


@dataclass(frozen=True)
class SwapEvents(WatchAction):
    """Deliver an event of a watch after the one that follows it."""

    first: int = 0
    """The index of the event that comes late."""


# Attached connections.


class AttachAction(Action):
    """A fault of a WebSocket to an attached container. To refuse the connection, use a fault of requests.

    It happens after some bytes of output. With 0 not even the first empty message arrives.
    """

    after: int


@dataclass(frozen=True)
class CutAttach(AttachAction):
    """Cut the connection without a close frame."""

    after: int = 0
    """The number of bytes of output (or input) that are still delivered."""
    direction: Literal["output", "input"] = "output"
    """Whether `after` counts the container's output or its input."""
    inside_frame: bool = False
    """Cut in the middle of the WebSocket frame that contains the last bytes of output."""
    clean: bool = False
    """End the stream of bytes normally instead of with httpcore.ReadError."""


@dataclass(frozen=True)
class CloseAttach(AttachAction):
    """Send a close frame, as a proxy or a restarting API server does."""

    after: int = 0
    """The number of bytes of output that are still delivered."""
    code: int = 1001
    """The close code. https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""
    reason: str = ""
    """The text in the close frame."""


@dataclass(frozen=True)
class GarbleAttach(AttachAction):
    """Send bytes that are not a WebSocket frame, then end the connection."""

    after: int = 0
    """The number of bytes of output that are still delivered."""
    garbage: bytes = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    """The bytes that follow."""


@dataclass(frozen=True)
class StallAttach(AttachAction):
    """Stop sending and receiving, and keep the connection open. Pings are not answered."""

    after: int = 0
    """The number of bytes of output that are still delivered."""


@dataclass(frozen=True)
class DelayAttach(AttachAction):
    """Delay output, then continue."""

    seconds: float
    """The length of the delay, in seconds."""
    after: int = 0
    """The number of bytes of output that are delivered before."""


# Jobs and pods.


@dataclass(frozen=True)
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

    message: str = 'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi". '
    """The pod's status message."""


@dataclass(frozen=True)
class Preempt(RunningPodAction):
    """Make the scheduler delete the running pod in favour of one with a higher priority."""


@dataclass(frozen=True)
class ShutDownNode(RunningPodAction):
    """Shut down the node of the running pod, as happens to Spot nodes.

    https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/
    """

    message: str = "Pod was terminated in response to imminent node shutdown."
    """The pod's status message."""


@dataclass(frozen=True)
class StopKubelet(RunningPodAction):
    """Stop the kubelet of a running pod, while the container continues.

    Until the kubelet starts again, the pod's status does not change, followed logs end, attached connections
    break, and requests for the log and to attach get 500. Just after its start it does not serve these requests
    yet and responds with 404 (recorded for ``pods/log``).
    """

    seconds: float | None
    """Seconds until the kubelet starts again; None if it never does."""
    starting: float = 0.9
    """Seconds after its start without logs."""

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
are plain values. They act on a request, on a response body, on a watch, or on the lifecycle of a pod or Job.
docs/faults.md has an example of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, TypeVar

Point = Literal[
    "request", "body", "watch", "deadline", "mutate", "admit", "schedule", "sandbox", "pull", "config", "run"
]


@dataclass(frozen=True)
class Match:
    """Selects requests or pods. A field that is None matches everything.

    For actions on a pod, `resource` is ``pods`` and the verb is empty. `HideConfigMap` matches the ConfigMap and
    `EndJob` matches the Job.
    """

    verb: str | None = None
    """The API verb: ``get``, ``list``, ``watch``, ``create`` or ``delete``."""
    resource: str | None = None
    """A plural name, with its subresource if there is one: ``jobs``, ``pods/log``."""
    namespace: str | None = None
    name: str | None = None
    """The name of the object, or a pattern such as ``gke-sandbox-*``."""

    def matches(self, verb: str, resource: str, namespace: str, name: str) -> bool:
        return (
            self.verb in (None, verb)
            and self.resource in (None, resource)
            and self.namespace in (None, namespace)
            and (self.name is None or fnmatchcase(name, self.name))
        )


@dataclass(frozen=True)
class Refuse:
    """Refuse the connection: the client gets httpx.ConnectError and nothing is sent."""

    point: ClassVar[Point] = "request"


@dataclass(frozen=True)
class Drop:
    """Break the connection before a response arrives: the client gets httpx.ReadError."""

    point: ClassVar[Point] = "request"
    carried_out: bool = True
    """Whether the server still processes the request."""


@dataclass(frozen=True)
class Delay:
    """Delay the response. A shorter client timeout expires first."""

    point: ClassVar[Point] = "request"
    seconds: float
    """The length of the delay, in seconds."""
    at: Literal["connect", "request", "response"] = "request"
    """When to wait: before the connection is established, before the request is processed, or after it."""


@dataclass(frozen=True)
class Respond:
    """Send this response instead of the real one."""

    point: ClassVar[Point] = "request"
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
class Forbid:
    """Respond with 403: the caller lacks the permission for the request."""

    point: ClassVar[Point] = "request"


@dataclass(frozen=True)
class CutBody:
    """End the response body early."""

    point: ClassVar[Point] = "body"
    after: int = 0
    """The number of bytes that are still delivered."""
    clean: bool = False
    """End the body normally instead of with httpx.ReadError."""


@dataclass(frozen=True)
class StallBody:
    """Stop sending the response body, and keep the connection open."""

    point: ClassVar[Point] = "body"
    after: int = 0
    """The number of bytes that are still delivered."""


@dataclass(frozen=True)
class GarbleBody:
    """Replace the rest of the response body, then end it."""

    point: ClassVar[Point] = "body"
    after: int = 0
    """The number of bytes that are still delivered."""
    garbage: bytes = b"\x00<not json>"
    """The bytes that follow."""


@dataclass(frozen=True)
class ExpireWatch:
    """Respond to a watch with 410: its resourceVersion is too old."""

    point: ClassVar[Point] = "watch"
    status: bool = False
    """Send 410 as the response itself. A real server always sends an ERROR event, the default."""
    after: int = 0
    """The number of events that come before the ERROR event."""


@dataclass(frozen=True)
class EndWatch:
    """End a watch normally, as a restarting API server does."""

    point: ClassVar[Point] = "watch"
    after: int = 0
    """The number of events that are delivered."""


@dataclass(frozen=True)
class OmitEvents:
    """Leave out events of a watch."""

    point: ClassVar[Point] = "watch"
    first: int = 0
    """The index of the first omitted event (0 is the first event; bookmarks count)."""
    count: int = 1
    """The number of omitted events."""


@dataclass(frozen=True)
class RepeatEvents:
    """Deliver events of a watch twice."""

    point: ClassVar[Point] = "watch"
    first: int = 0
    """The index of the first repeated event."""
    count: int = 1
    """The number of repeated events."""


@dataclass(frozen=True)
class SwapEvents:
    """Deliver an event of a watch after the one that follows it."""

    point: ClassVar[Point] = "watch"
    first: int = 0
    """The index of the event that comes late."""


@dataclass(frozen=True)
class EndJob:
    """Make the Job reach its deadline, regardless of its activeDeadlineSeconds."""

    point: ClassVar[Point] = "deadline"
    after: float
    """Seconds from the start of the Job."""


@dataclass(frozen=True)
class RefusePod:
    """Reject the pod that the Job controller creates. Only an Event on the Job shows it."""

    point: ClassVar[Point] = "admit"
    message: str
    """The text after ``pods "..." is forbidden:``."""

    @classmethod
    def quota_exceeded(cls) -> RefusePod:
        """The ResourceQuota admits no pod."""
        return cls("exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0")

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
class Mutate:
    """A mutating admission policy: `change` edits the Job or the pod in place, with its defaults.

    Defaults are set again afterwards, and the object is validated. Give `Match` a resource: ``jobs`` or ``pods``.
    https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
    """

    point: ClassVar[Point] = "mutate"
    change: Callable[[dict[str, Any]], object]
    """Called with the object as decoded JSON; its return value is ignored."""


@dataclass(frozen=True)
class NoNode:
    """Keep the pod Unschedulable."""

    point: ClassVar[Point] = "schedule"
    seconds: float | None = None
    """How long, in seconds; None for as long as the pod exists."""
    message: str = (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to "
        "deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
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


@dataclass(frozen=True)
class NoPodSandbox:
    """Fail to create the pod sandbox; the kubelet retries. Only Events show it."""

    point: ClassVar[Point] = "sandbox"
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
class BadImage:
    """Fail to pull the image: ErrImagePull, then ImagePullBackOff."""

    point: ClassVar[Point] = "pull"
    message: str | None = None
    """The runtime's message; None for that of a host that does not exist."""


@dataclass(frozen=True)
class HideConfigMap:
    """Hide a new ConfigMap from the kubelet for a while."""

    point: ClassVar[Point] = "config"
    seconds: float
    """Seconds from the creation of the ConfigMap."""


@dataclass(frozen=True)
class Evict:
    """Evict the running pod from its node."""

    point: ClassVar[Point] = "run"
    after: float
    """Seconds from the start of the container."""
    message: str = 'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi". '
    """The pod's status message."""


@dataclass(frozen=True)
class Preempt:
    """Make the scheduler delete the running pod in favour of one with a higher priority."""

    point: ClassVar[Point] = "run"
    after: float
    """Seconds from the start of the container."""


@dataclass(frozen=True)
class ShutDownNode:
    """Shut down the node of the running pod, as happens to Spot nodes.

    https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/
    """

    point: ClassVar[Point] = "run"
    after: float
    """Seconds from the start of the container."""
    message: str = "Pod was terminated in response to imminent node shutdown."
    """The pod's status message."""


@dataclass(frozen=True)
class StopKubelet:
    """Stop the kubelet of a running pod, while the container continues.

    Until the kubelet starts again, the pod's status does not change, followed logs end, and requests for the log
    get 500. Just after its start it does not serve logs yet and responds with 404 for ``pods/log`` (recorded).
    """

    point: ClassVar[Point] = "run"
    after: float
    """Seconds from the start of the container until the kubelet stops."""
    seconds: float | None
    """Seconds until the kubelet starts again; None if it never does."""
    starting: float = 0.9
    """Seconds after its start without logs."""


Action = (
    Refuse
    | Drop
    | Delay
    | Respond
    | Forbid
    | CutBody
    | StallBody
    | GarbleBody
    | ExpireWatch
    | EndWatch
    | OmitEvents
    | RepeatEvents
    | SwapEvents
    | EndJob
    | Mutate
    | RefusePod
    | NoNode
    | NoPodSandbox
    | BadImage
    | HideConfigMap
    | Evict
    | Preempt
    | ShutDownNode
    | StopKubelet
)

A = TypeVar("A", bound=Action)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong: an action, and when it applies."""

    action: Action
    """The action of the fault."""
    match: Match = field(default_factory=Match)
    """Which requests or pods it applies to; all by default."""
    times: int | None = 1
    """How often it applies; None for every time."""
    skip: int = 0
    """How many matching requests or pods to leave alone first."""


class FaultPlan:
    """The faults of one cluster, and how often each has occurred. Use each value for one cluster only."""

    def __init__(self, *faults: Fault) -> None:
        self._faults: list[Fault] = []
        self._seen: list[int] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Add a fault; the cluster may be running."""
        self._faults.append(fault)
        self._seen.append(0)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()
        self._seen.clear()

    def count(self, fault: Fault) -> int:
        """Return how often a fault of this plan has occurred."""
        return sum(
            self._count(index) for index, added in enumerate(self._faults) if added is fault or added == fault
        )

    def _count(self, index: int) -> int:
        fault = self._faults[index]
        count = max(self._seen[index] - fault.skip, 0)
        return count if fault.times is None else min(count, fault.times)

    def actions_for(self, point: Point, verb: str, resource: str, namespace: str, name: str) -> Iterator[Action]:
        """Yield the actions that apply to this request or pod at this point, and count them."""
        for index, fault in enumerate(self._faults):
            if fault.action.point == point and fault.match.matches(verb, resource, namespace, name):
                before = self._count(index)
                self._seen[index] += 1
                if self._count(index) > before:
                    yield fault.action

    def first(self, kind: type[A], resource: str, namespace: str, name: str) -> A | None:
        """Return the first action of this kind that applies to this object, or None."""
        for action in list(self.actions_for(kind.point, "", resource, namespace, name)):
            if isinstance(action, kind):
                return action
        return None

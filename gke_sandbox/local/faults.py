"""How the embedded cluster is told to misbehave, so that every failure can be tried without a cluster.

A `Fault` says what goes wrong (its action), where (`Match`), and how often. A `Misbehaviour` is a list of
them that counts, and that may grow while the cluster runs::

    cluster = LocalTransport(runtime, misbehaviour=Misbehaviour(
        Fault(Answer.too_many_requests(retry_after=1), Match("create", "jobs"), times=2),
        Fault(Drop(), Match("create", "configmaps")),
        Fault(ExpireWatch(), Match("watch", "pods"), times=None),
    ))

Faults are looked at in their order, and every one that matches and has not been used up happens. Actions are
plain values; some act on requests, some on the body of an answer, some on the watch, some on a pod's way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeVar

Point = Literal["request", "body", "watch", "deadline", "admit", "schedule", "sandbox", "pull", "config", "run"]


@dataclass(frozen=True)
class Match:
    """Which requests, or which pods. None matches everything; names may be patterns (``gke-sandbox-*``).

    `verb` is the API's: get, list, watch, create, update, patch, delete, deletecollection; `resource` is a
    plural name, with a subresource as in ``pods/log``. Actions on a pod's way match the pod (resource
    ``pods``, no verb); `HideConfigMap` matches the ConfigMap, `EndJob` the Job.
    """

    verb: str | None = None
    resource: str | None = None
    namespace: str | None = None
    name: str | None = None

    def fits(self, verb: str, resource: str, namespace: str, name: str) -> bool:
        return (
            self.verb in (None, verb)
            and self.resource in (None, resource)
            and self.namespace in (None, namespace)
            and (self.name is None or fnmatchcase(name, self.name))
        )


@dataclass(frozen=True)
class Refuse:
    """The connection is refused: httpx.ConnectError, and nothing was sent."""

    point: ClassVar[Point] = "request"


@dataclass(frozen=True)
class Drop:
    """The connection breaks before an answer: httpx.ReadError. `carried_out`: the request had its effect."""

    point: ClassVar[Point] = "request"
    carried_out: bool = True


@dataclass(frozen=True)
class Delay:
    """The answer is `seconds` late; a shorter timeout of the client's comes first.

    `at` says where the time goes: ``connect`` before the connection stands, ``request`` before the request is
    carried out, ``answer`` after.
    """

    point: ClassVar[Point] = "request"
    seconds: float
    at: Literal["connect", "request", "answer"] = "request"


@dataclass(frozen=True)
class Answer:
    """This answer instead of the real one. `text`: not a Status but this plain text, as proxies send it.

    `carried_out`: the request had its effect all the same (a 504 after the work was done).
    """

    point: ClassVar[Point] = "request"
    code: int
    reason: str
    message: str
    retry_after: int | None = None
    text: str | None = None
    carried_out: bool = False

    @classmethod
    def unauthorized(cls) -> Answer:
        return cls(401, "Unauthorized", "Unauthorized")

    @classmethod
    def too_many_requests(cls, retry_after: int | None = 1) -> Answer:
        """What priority and fairness answer: plain text.

        https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
        """
        message = "Too many requests, please try again later."
        return cls(429, "TooManyRequests", message, retry_after, text=message + "\n")

    @classmethod
    def internal_error(cls, carried_out: bool = False) -> Answer:
        message = "Internal error occurred: etcdserver: request timed out"
        return cls(500, "InternalError", message, carried_out=carried_out)

    @classmethod
    def unavailable(cls, retry_after: int | None = None) -> Answer:
        message = "the server is currently unable to handle the request"
        return cls(503, "ServiceUnavailable", message, retry_after)

    @classmethod
    def timed_out(cls, carried_out: bool = True) -> Answer:
        message = "Timeout: request did not complete within requested timeout - context deadline exceeded"
        return cls(504, "Timeout", message, carried_out=carried_out)

    @classmethod
    def quota_conflict(cls, quota: str = "gke-sandbox") -> Answer:
        """The response to a POST when the server could not update the ResourceQuota; nothing is created.

        It happens when many objects are created at once. https://github.com/kubernetes/kubernetes/issues/67761
        """
        message = (
            f'Operation cannot be fulfilled on resourcequotas "{quota}": the object has been modified; please '
            "apply your changes to the latest version and try again"
        )
        return cls(409, "Conflict", message)

    @classmethod
    def bad_gateway(cls) -> Answer:
        """What a load balancer in front of the server answers: HTML, no Status."""
        return cls(502, "", "", text="<html><head><title>502 Bad Gateway</title></head></html>\n")


@dataclass(frozen=True)
class Forbid:
    """403: the caller has no permission for what it asks."""

    point: ClassVar[Point] = "request"


@dataclass(frozen=True)
class CutBody:
    """The body ends after `after` bytes: broken off (httpx.ReadError), or `clean`, as if that were all."""

    point: ClassVar[Point] = "body"
    after: int = 0
    clean: bool = False


@dataclass(frozen=True)
class StallBody:
    """After `after` bytes of the body nothing more comes, and the connection stays open."""

    point: ClassVar[Point] = "body"
    after: int = 0


@dataclass(frozen=True)
class GarbleBody:
    """After `after` bytes of the body comes `garbage` instead of the rest, and then its end."""

    point: ClassVar[Point] = "body"
    after: int = 0
    garbage: bytes = b"\x00<not json>"


@dataclass(frozen=True)
class ExpireWatch:
    """The watch's resourceVersion is too old: 410 as the answer itself, or (`after` events) as an ERROR event.

    A real server gives the event, even for a version that is too old from the start.
    """

    point: ClassVar[Point] = "watch"
    status: bool = False
    after: int = 0


@dataclass(frozen=True)
class EndWatch:
    """The watch ends, cleanly, after `after` events, as it does when a server is restarted."""

    point: ClassVar[Point] = "watch"
    after: int = 0


@dataclass(frozen=True)
class OmitEvents:
    """`count` events of the watch never come, from number `first` on (counted from 0, bookmarks too)."""

    point: ClassVar[Point] = "watch"
    first: int = 0
    count: int = 1


@dataclass(frozen=True)
class RepeatEvents:
    """`count` events of the watch come twice, from number `first` on."""

    point: ClassVar[Point] = "watch"
    first: int = 0
    count: int = 1


@dataclass(frozen=True)
class SwapEvents:
    """Event number `first` of the watch comes after the one that follows it."""

    point: ClassVar[Point] = "watch"
    first: int = 0


@dataclass(frozen=True)
class EndJob:
    """The Job reaches its deadline `after` seconds from its start, whatever its activeDeadlineSeconds say."""

    point: ClassVar[Point] = "deadline"
    after: float


@dataclass(frozen=True)
class RefusePod:
    """The API server refuses the Job controller's pod, and only an Event on the Job says so.

    `message` is what follows ``pods "..." is forbidden:``.
    """

    point: ClassVar[Point] = "admit"
    message: str

    @classmethod
    def quota_exceeded(cls) -> RefusePod:
        return cls("exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0")

    @classmethod
    def runtime_class_missing(cls, name: str = "gvisor") -> RefusePod:
        return cls(f'pod rejected: RuntimeClass "{name}" not found')

    @classmethod
    def pod_security(cls, container: str = "code-runner") -> RefusePod:
        return cls(
            'violates PodSecurity "restricted:latest": seccompProfile (pod or container '
            f'"{container}" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
        )


@dataclass(frozen=True)
class NoNode:
    """No node takes the pod: it stays Unschedulable for `seconds`, or for ever.

    `autoscaler`: reason and message of the Event with which the cluster autoscaler says what it does about it.
    https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
    """

    point: ClassVar[Point] = "schedule"
    seconds: float | None = None
    message: str = (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to "
        "deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    autoscaler: tuple[str, str] | None = None

    @classmethod
    def scaling_up(cls, seconds: float | None) -> NoNode:
        """A node is being made, which takes `seconds`."""
        message = "pod triggered scale-up: [{gvisor-pool 0->1 (max: 3)}]"
        return cls(seconds, autoscaler=("TriggeredScaleUp", message))

    @classmethod
    def cannot_scale_up(cls) -> NoNode:
        """No node that could be made would take the pod."""
        message = "pod didn't trigger scale-up: 1 node(s) didn't match Pod's node affinity/selector"
        return cls(autoscaler=("NotTriggerScaleUp", message))


@dataclass(frozen=True)
class NoPodSandbox:
    """The node cannot prepare the pod, and tries again every `retry` seconds; only Events say so."""

    point: ClassVar[Point] = "sandbox"
    message: str
    retry: float = 12.0

    @classmethod
    def no_handler(cls, handler: str = "runsc") -> NoPodSandbox:
        """The RuntimeClass names a handler that the node's containerd does not know."""
        return cls(
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: "
            f'no runtime for "{handler}" is configured'
        )


@dataclass(frozen=True)
class BadImage:
    """The image cannot be pulled: ErrImagePull, later ImagePullBackOff. `message` None: as for no such host."""

    point: ClassVar[Point] = "pull"
    message: str | None = None


@dataclass(frozen=True)
class HideConfigMap:
    """The kubelet sees the ConfigMap `seconds` after it was created."""

    point: ClassVar[Point] = "config"
    seconds: float


@dataclass(frozen=True)
class Evict:
    """The node evicts the pod `after` seconds of running."""

    point: ClassVar[Point] = "run"
    after: float
    message: str = 'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi". '


@dataclass(frozen=True)
class Preempt:
    """The scheduler deletes the pod, for one that is more important, `after` seconds of running."""

    point: ClassVar[Point] = "run"
    after: float


@dataclass(frozen=True)
class ShutDownNode:
    """The pod's node is shut down `after` seconds of running, as a Spot node is.

    https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/
    """

    point: ClassVar[Point] = "run"
    after: float
    message: str = "Pod was terminated in response to imminent node shutdown."


Action = (
    Refuse
    | Drop
    | Delay
    | Answer
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
    | RefusePod
    | NoNode
    | NoPodSandbox
    | BadImage
    | HideConfigMap
    | Evict
    | Preempt
    | ShutDownNode
)

A = TypeVar("A", bound=Action)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: `action` for what `match` fits, after it was spared `skip` times.

    `times` is how often it happens, None: each time.
    """

    action: Action
    match: Match = field(default_factory=Match)
    times: int | None = 1
    skip: int = 0


class Misbehaviour:
    """Faults, and how often each has happened. One value belongs to one cluster."""

    def __init__(self, *faults: Fault) -> None:
        self._faults: list[Fault] = []
        self._seen: list[int] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Add a fault, also while the cluster runs."""
        self._faults.append(fault)
        self._seen.append(0)

    def clear(self) -> None:
        """From now on all is well."""
        self._faults.clear()
        self._seen.clear()

    def happened(self, fault: Fault) -> int:
        """How often an added fault has happened."""
        return sum(
            self._count(index) for index, added in enumerate(self._faults) if added is fault or added == fault
        )

    def _count(self, index: int) -> int:
        fault = self._faults[index]
        count = max(self._seen[index] - fault.skip, 0)
        return count if fault.times is None else min(count, fault.times)

    def take(self, point: Point, verb: str, resource: str, namespace: str, name: str) -> Iterator[Action]:
        """The actions that happen at this point to this request or pod, which is counted as seen."""
        for index, fault in enumerate(self._faults):
            if fault.action.point == point and fault.match.fits(verb, resource, namespace, name):
                before = self._count(index)
                self._seen[index] += 1
                if self._count(index) > before:
                    yield fault.action

    def first(self, kind: type[A], resource: str, namespace: str, name: str) -> A | None:
        """The first action of this kind that happens to this pod or ConfigMap."""
        for action in list(self.take(kind.point, "", resource, namespace, name)):
            if isinstance(action, kind):
                return action
        return None

"""Where the embedded cluster (or any) may answer in another shape than the recorded server did, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .drift import Drift

__all__ = ["ALLOWED", "Allowed", "unexpected"]


@dataclass(frozen=True)
class Allowed:
    """A difference with its reason. `scenarios` and `path` are patterns; `step` is the recorded step's name.

    With `everywhere` it lies in the cassette, and a live cluster may differ from it as well.
    """

    scenarios: str
    step: str
    path: str
    reason: str
    everywhere: bool = False

    def covers(self, scenario: str, difference: Drift) -> bool:
        return (
            re.fullmatch(self.scenarios, scenario) is not None
            and self.step == difference.step
            and re.fullmatch(self.path, difference.path) is not None
        )


_RECORDER = "the recorder took the program in by environment and by volume, this library by volume alone"
_FAULT = "this refusal is told of the embedded cluster by a fault, and a fault's Status has no details"

ALLOWED = (
    *(
        Allowed(
            ".*",
            step,
            r"metadata\.annotations",
            "the recorder's Jobs did not carry the digest of their program",
            everywhere=True,
        )
        for step in ("create-jobs-1", "create-jobs-2", "get-jobs-1")
    ),
    Allowed(
        "execution-mounted|evicted",
        "watch-pods",
        r".*spec\.containers\[code-runner\]\.env",
        _RECORDER,
        everywhere=True,
    ),
    Allowed(
        "execution-mounted|evicted",
        "create-jobs-1",
        r".*spec\.containers\[code-runner\]\.env",
        _RECORDER,
        everywhere=True,
    ),
    Allowed(
        "execution-out-of-memory|program-stops-the-runner",
        "watch-pods",
        r"Running terminated .*: status\.conditions\[PodReadyToStartContainers\]\.status",
        "the kubelet says in one event that the container has ended and its sandbox is gone, where the embedded "
        "one says the second with the phase",
    ),
    Allowed(
        "deadline-exceeded",
        "watch-pods",
        r"Failed terminated .*: status\.resources\..*",
        "the kubelet takes a pod that ends apart piece by piece, and its status.resources too",
    ),
    Allowed(
        "deadline-exceeded",
        "get-jobs-1",
        r"status\.conditions\[Failed\]",
        "the recorder asked a second after the pod's end; this library asks at once, and FailureTarget is there",
    ),
    Allowed(
        "pod-security-violation",
        "create-jobs-1",
        r"headers|.*securityContext\.capabilities\.drop",
        "the recorded Job violates the standard, and the server warns of it; one of this library does not",
    ),
    Allowed(
        "kubelet-restart",
        "list-pods-1",
        r".*containerStatuses\[code-runner\]\.user",
        "the node's container runtime reports which user a container runs as, the embedded one does not",
    ),
    Allowed("invalid-job", "create-jobs-1", "details", _FAULT),
    Allowed("configmap-too-large", "create-configmaps-1", "details", _FAULT),
    Allowed(
        "already-exists",
        "get-jobs-1",
        r"status\..*",
        "the cassette's answer to this GET is that of the POST, when the Job had no status yet",
    ),
)


def unexpected(scenario: str, differences: Sequence[Drift], *, live: bool = False) -> list[Drift]:
    """The differences that no entry of `ALLOWED` covers."""
    allowed = [one for one in ALLOWED if one.everywhere or not live]
    return [each for each in differences if not any(one.covers(scenario, each) for one in allowed)]

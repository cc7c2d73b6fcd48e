"""Allowed differences between recorded responses and those of the embedded or a live cluster, with reasons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .drift import Drift

__all__ = ["ALLOWED", "Allowed", "unexpected"]


@dataclass(frozen=True)
class Allowed:
    """A difference with its reason. `scenarios` and `path` are patterns; `step` is the name of the recorded step.

    If `everywhere`, the cassette is the cause, and a live cluster may differ from it as well.
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


_RECORDER = "the recorder passed the program by environment and by volume, this library by volume only"
_FAULT = "in the embedded cluster a fault returns this refusal, and the Status of a fault has no details"

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
    *(
        Allowed(
            "attach-.*",
            step,
            r".*spec\.containers\[code-runner\]\.(env\[.*|stdin|stdinOnce)",
            "the Jobs and pods are those of executions whose program was in environment variables",
            everywhere=True,
        )
        for step in ("create-jobs-1", "create-jobs-2", "watch-pods")
    ),
    *(
        Allowed(
            "attach-warm",
            f"{verb}-jobs-{number}",
            "the request",
            "the pods that take the place of the two warm ones were not recorded; they get no program",
            everywhere=True,
        )
        for verb in ("create", "delete")
        for number in (3, 4)
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
        "execution-out-of-memory|attach-out-of-memory|program-stops-the-runner",
        "watch-pods",
        r"Running terminated .*: status\.conditions\[PodReadyToStartContainers\]\.status",
        "the kubelet reports in one event that the container has ended and its sandbox is gone; the embedded one "
        "reports the latter together with the phase",
    ),
    Allowed(
        "deadline-exceeded",
        "watch-pods",
        r"Failed terminated .*: status\.resources\..*",
        "the kubelet removes the resources of a finished pod step by step, and so its status.resources",
    ),
    Allowed(
        "deadline-exceeded",
        "get-jobs-1",
        r"status\.conditions\[Failed\]",
        "the recorder read the Job a second after the end of the pod; this library reads it at once",
    ),
    Allowed(
        "pod-security-violation",
        "create-jobs-1",
        r"headers|.*securityContext\.capabilities\.drop",
        "the recorded Job violates the standard, and the server warns of it; a Job of this library does not",
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
        "the recorded response to this GET is that of the POST, when the Job had no status yet",
    ),
)


def unexpected(scenario: str, differences: Sequence[Drift], *, live: bool = False) -> list[Drift]:
    """Return the differences that no entry of `ALLOWED` covers."""
    allowed = [one for one in ALLOWED if one.everywhere or not live]
    return [each for each in differences if not any(one.covers(scenario, each) for one in allowed)]

"""Turn the state of the cluster into a cause, a message and a hint. Pure."""

from __future__ import annotations

from .causes import CAUSES, FailureCause, WaitReason, cause
from .events import job_termination, job_wait_reason, pod_wait_reason, rejection, suspension
from .pod_state import PodState, Termination, read_pod, without_unread_fields

__all__ = [
    "CAUSES",
    "FailureCause",
    "PodState",
    "Termination",
    "WaitReason",
    "cause",
    "job_termination",
    "job_wait_reason",
    "pod_wait_reason",
    "read_pod",
    "rejection",
    "suspension",
    "without_unread_fields",
]

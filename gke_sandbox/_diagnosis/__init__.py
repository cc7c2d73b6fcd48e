"""From what the cluster says to a cause, a sentence and a hint. Pure: JSON in, words out."""

from __future__ import annotations

from .causes import CAUSES, Cause, cause
from .events import job_ending, job_wait, pod_wait
from .pod_state import Ending, PodView, Wait, view

__all__ = ["CAUSES", "Cause", "Ending", "PodView", "Wait", "cause", "job_ending", "job_wait", "pod_wait", "view"]

"""OpenTelemetry: a span and metrics for each run, if opentelemetry-api is installed.

docs/observability.md lists them. Without opentelemetry-api nothing is imported, and nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import SandboxError
from .result import ExecutionEvent, ExecutionResult, PhaseChanged, PodWaiting
from .settings import Settings

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter
    from opentelemetry.trace import Span

__all__ = ["RunTelemetry", "record_ready", "record_taken"]

_NAME = "gke_sandbox"
_BOUNDARIES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The boundaries of the histograms, in seconds: from a warm start to a new node."""


class _Instruments:
    """The tracer and the metrics."""

    def __init__(self) -> None:
        from opentelemetry import metrics, trace

        self.tracer = trace.get_tracer(_NAME, __version__)
        self.use_span = trace.use_span
        self.error_status = trace.Status(trace.StatusCode.ERROR)
        meter = metrics.get_meter(_NAME, __version__)
        self.runs = meter.create_counter("gke_sandbox.runs", "{run}", "Runs that have ended.")
        self.in_flight = meter.create_up_down_counter("gke_sandbox.runs.in_flight", "{run}", "Runs in progress.")
        self.start_duration = _histogram(
            meter, "gke_sandbox.start.duration", "Time from the call until the container runs."
        )
        self.run_duration = _histogram(
            meter, "gke_sandbox.run.duration", "Time from the call until the result or the error."
        )
        self.warm_ready = meter.create_up_down_counter(
            "gke_sandbox.warm_pods.ready", "{pod}", "Warm pods that wait for a program."
        )
        self.warm_taken = meter.create_counter(
            "gke_sandbox.warm_pods.taken", "{pod}", "Warm pods that were given a program."
        )


def _histogram(meter: Meter, name: str, description: str) -> Histogram:
    """Return a histogram of seconds. The boundaries of the SDK are made for milliseconds."""
    try:
        return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_BOUNDARIES)
    except TypeError:  # opentelemetry-api before 1.30
        return meter.create_histogram(name, "s", description)


@cache
def _instruments() -> _Instruments | None:
    """Return the instruments, or None without opentelemetry-api."""
    try:
        return _Instruments()
    except ImportError:
        return None


class RunTelemetry:
    """The span and the metrics of one run."""

    def __init__(self, settings: Settings, session: str) -> None:
        self._settings = settings
        self._session = session
        self._span: Span | None = None
        self._started_after: float | None = None

    @contextmanager
    def span(self) -> Iterator[None]:
        """Record the block as a span. It is the current one, so that spans of HTTP requests are its children."""
        otel = _instruments()
        if otel is None:
            yield
            return
        attributes: dict[str, str | float] = {
            "k8s.namespace.name": self._settings.namespace,
            "container.image.name": self._settings.image,
            "gke_sandbox.session": self._session,
            "gke_sandbox.timeout": self._settings.timeout,
        }
        namespace = {"k8s.namespace.name": self._settings.namespace}
        otel.in_flight.add(1, namespace)
        try:
            self._span = otel.tracer.start_span("gke_sandbox.run", attributes=attributes)
            if not self._span.get_span_context().is_valid:
                # Nothing is configured to receive spans.
                yield
                return
            with otel.use_span(
                self._span, end_on_exit=True, record_exception=False, set_status_on_exception=False
            ):
                yield
        finally:
            otel.in_flight.add(-1, namespace)

    def on_event(self, event: ExecutionEvent) -> None:
        """Add a phase, or the reason why the pod waits, to the span."""
        if isinstance(event, PhaseChanged) and event.phase == "started":
            self._started_after = event.seconds
        if self._span is None:
            return
        if isinstance(event, PhaseChanged):
            self._span.add_event(event.phase, {"gke_sandbox.seconds": event.seconds})
            if event.phase == "scheduled":
                self._span.set_attribute("k8s.node.name", event.detail)
        elif isinstance(event, PodWaiting):
            attributes = {"gke_sandbox.reason": event.reason, "gke_sandbox.cause": event.cause}
            self._span.add_event("waiting", attributes)

    def ended(self, outcome: ExecutionResult | SandboxError, job: str, seconds: float) -> None:
        """Record how the run ended, and count it."""
        otel = _instruments()
        if otel is None or self._span is None:
            return
        found: dict[str, Any] = {"gke_sandbox.start": "cold"}
        details: dict[str, Any] = {"k8s.job.name": job, "k8s.pod.name": getattr(outcome, "pod", "")}
        if isinstance(outcome, ExecutionResult):
            found |= {"gke_sandbox.status": outcome.status, "gke_sandbox.start": outcome.start}
            details |= {
                "process.exit.code": outcome.exit_code,
                "gke_sandbox.signal": outcome.signal,
                "gke_sandbox.program.duration": outcome.timings.program,
                "gke_sandbox.stdout.size": len(outcome.stdout_bytes),
                "gke_sandbox.stderr.size": len(outcome.stderr_bytes),
                "gke_sandbox.files": len(outcome.files),
            }
        else:
            found |= {"gke_sandbox.status": "error", "error.type": type(outcome).__name__}
            details["gke_sandbox.may_have_run"] = outcome.may_have_run
            self._span.record_exception(outcome)
            self._span.set_status(otel.error_status)
        cause = getattr(outcome, "cause", "")
        if cause:
            found["gke_sandbox.cause"] = cause
        present = {name: value for name, value in details.items() if value not in (None, "")}
        self._span.set_attributes({**found, **present})
        otel.runs.add(1, found)
        otel.run_duration.record(seconds, found)
        if self._started_after is not None:
            otel.start_duration.record(self._started_after, {"gke_sandbox.start": found["gke_sandbox.start"]})


def record_ready(change: int) -> None:
    """Count a warm pod that has become ready (1), or is not any more (-1)."""
    otel = _instruments()
    if otel is not None:
        otel.warm_ready.add(change)


def record_taken() -> None:
    """Count a warm pod that was given a program."""
    otel = _instruments()
    if otel is not None:
        otel.warm_taken.add(1)

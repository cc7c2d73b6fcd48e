"""OpenTelemetry: spans and metrics of runs, read with the in-memory exporters of its SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from gke_sandbox import Cluster, Sandbox, StartError, _telemetry
from gke_sandbox.local import Fault
from gke_sandbox.local.faults import BadImage

from .clock import mock_clock
from .pods import out, pods, program
from .test_warm import ready
from .warm_runner import WaitingRunner


class Exported:
    """The spans that the SDK has collected, and a tracer for the caller."""

    def __init__(self, tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
        self.spans = InMemorySpanExporter()
        tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = tracer_provider.get_tracer("caller")
        self._meter_provider = meter_provider

    def run_spans(self) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == "gke_sandbox.run"]

    def run_span(self) -> ReadableSpan:
        (span,) = self.run_spans()
        return span


@pytest.fixture
def metric_reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def exported(metric_reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    """Providers of this test. The API allows only one global provider per process."""
    tracer_provider, meter_provider = TracerProvider(), MeterProvider([metric_reader])
    monkeypatch.setattr(trace, "get_tracer", tracer_provider.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", meter_provider.get_meter)
    _telemetry._instruments.cache_clear()
    yield Exported(tracer_provider, meter_provider)
    _telemetry._instruments.cache_clear()


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """Return the value, or the count of values, of each metric by its attributes."""
    data = reader.get_metrics_data()
    found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [
                    (dict(point.attributes or {}), getattr(point, "value", None) or getattr(point, "count", 0))
                    for point in metric.data.data_points
                ]
    return found


@mock_clock
async def test_a_run_is_a_span_with_its_phases_and_attributes(exported: Exported) -> None:
    async with pods(program(out("hello"), code=3)) as cluster:
        result = await cluster.sandbox.run("secret-code", timeout=30, env={"TOKEN": "secret-value"})
        session = cluster.sandbox.session
    span = exported.run_span()
    assert span.status.status_code is StatusCode.UNSET
    attributes = dict(span.attributes or {})
    node, seconds = attributes.pop("k8s.node.name"), attributes.pop("gke_sandbox.program.duration")
    assert node
    assert seconds == 0.1
    assert attributes == {
        "k8s.namespace.name": "default",
        "k8s.job.name": result.job,
        "k8s.pod.name": result.pod,
        "container.image.name": "python:3.11-slim",
        "process.exit.code": 3,
        "gke_sandbox.session": session,
        "gke_sandbox.timeout": 30.0,
        "gke_sandbox.status": "failed",
        "gke_sandbox.start": "cold",
        "gke_sandbox.stdout.size": 5,
        "gke_sandbox.stderr.size": 0,
        "gke_sandbox.files": 0,
    }
    assert [event.name for event in span.events] == ["created", "scheduled", "started", "first_output", "finished"]
    assert "secret" not in span.to_json()


@mock_clock
async def test_an_error_is_recorded_with_its_cause(
    exported: Exported, metric_reader: InMemoryMetricReader
) -> None:
    async with pods(program(), Fault(BadImage())) as cluster:
        with pytest.raises(StartError) as caught:
            await cluster.sandbox.run("pass")
    span = exported.run_span()
    assert span.status.status_code is StatusCode.ERROR
    attributes = dict(span.attributes or {})
    assert attributes["error.type"] == "StartError"
    assert attributes["gke_sandbox.cause"] == caught.value.cause
    assert attributes["gke_sandbox.may_have_run"] is False
    assert "exception" in [event.name for event in span.events]
    assert points(metric_reader)["gke_sandbox.runs"] == [
        (
            {
                "gke_sandbox.status": "error",
                "gke_sandbox.start": "cold",
                "gke_sandbox.cause": caught.value.cause,
                "error.type": "StartError",
            },
            1,
        )
    ]


@mock_clock
async def test_runs_are_counted_and_measured(exported: Exported, metric_reader: InMemoryMetricReader) -> None:
    async with pods(program(out("x"))) as cluster:
        await cluster.sandbox.map(["a", "b", "c"])
    found = points(metric_reader)
    succeeded = {"gke_sandbox.status": "succeeded", "gke_sandbox.start": "cold"}
    assert found["gke_sandbox.runs"] == [(succeeded, 3)]
    assert found["gke_sandbox.run.duration"] == [(succeeded, 3)]
    assert found["gke_sandbox.start.duration"] == [({"gke_sandbox.start": "cold"}, 3)]
    assert found["gke_sandbox.runs.in_flight"] == [({"k8s.namespace.name": "default"}, 0)]
    assert len(exported.run_spans()) == 3


@mock_clock
async def test_the_histograms_distinguish_warm_and_cold_starts(
    exported: Exported, metric_reader: InMemoryMetricReader
) -> None:
    async with pods(program()) as cluster:
        await cluster.sandbox.run("pass")
    data = metric_reader.get_metrics_data()
    assert data is not None
    found = [
        metric for metric in data.resource_metrics[0].scope_metrics[0].metrics if metric.name.endswith("duration")
    ]
    assert len(found) == 2
    for metric in found:
        (point,) = metric.data.data_points
        assert {0.05, 0.25, 5.0} <= set(getattr(point, "explicit_bounds", ()))


@mock_clock
async def test_warm_pods_are_counted(exported: Exported, metric_reader: InMemoryMetricReader) -> None:
    async with pods(WaitingRunner().script, warm=2) as cluster:
        await ready(cluster, 2)
        assert points(metric_reader)["gke_sandbox.warm_pods.ready"] == [({}, 2)]
        assert (await cluster.sandbox.run("pass")).start == "warm"
    found = points(metric_reader)
    assert found["gke_sandbox.warm_pods.taken"] == [({}, 1)]
    assert found["gke_sandbox.warm_pods.ready"] == [({}, 0)]
    assert (exported.run_span().attributes or {})["gke_sandbox.start"] == "warm"


@mock_clock
async def test_the_span_has_the_callers_span_as_its_parent(exported: Exported) -> None:
    async with pods(program()) as cluster:
        with exported.tracer.start_as_current_span("outer") as outer:
            await cluster.sandbox.run("pass")
    parent = exported.run_span().parent
    assert parent is not None
    assert parent.span_id == outer.get_span_context().span_id


def test_the_synchronous_sandbox_keeps_the_parent(exported: Exported) -> None:
    with Sandbox(Cluster.local("process")) as sandbox, exported.tracer.start_as_current_span("outer") as outer:
        sandbox.run("pass")
    parent = exported.run_span().parent
    assert parent is not None
    assert parent.span_id == outer.get_span_context().span_id


@mock_clock
async def test_a_cancelled_run_ends_its_span(exported: Exported, metric_reader: InMemoryMetricReader) -> None:
    async with pods(WaitingRunner(lambda _: b"").script, delivery="attach") as cluster:
        with anyio.move_on_after(0.2):
            await cluster.sandbox.run("pass")
    assert "gke_sandbox.status" not in (exported.run_span().attributes or {})
    assert points(metric_reader)["gke_sandbox.runs.in_flight"][0][1] == 0


def test_without_the_package_nothing_is_imported_and_runs_work() -> None:
    code = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
from gke_sandbox import Cluster, Sandbox
with Sandbox(Cluster.local("process")) as sandbox:
    print(sandbox.run("print(1)").stdout, [name for name in sys.modules if name.startswith("opentelemetry")])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n []\n"

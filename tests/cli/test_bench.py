"""``gke-sandbox bench``: its tables, its JSON object, its errors, and what it leaves after a signal."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox import AsyncSandbox, Cluster
from gke_sandbox.cli import main
from gke_sandbox.cli.bench_session import ANNOTATION, PROGRAM, percentile
from gke_sandbox.local import Fault, FaultPlan, LocalTransport, Match, ScriptedRuntime
from gke_sandbox.local.faults import BadImage, CutAttach, Respond

from ..pods import err, exit_frame
from ..warm_runner import WaitingRunner
from .processes import start_real


class Bench:
    """The command on an embedded cluster with scripted pods."""

    def __init__(self, *faults: Fault, runner: WaitingRunner | None = None) -> None:
        self.runner = runner or WaitingRunner()
        self.cluster = LocalTransport(ScriptedRuntime(self.runner.script), faults=FaultPlan(*faults))
        self.sandbox: AsyncSandbox | None = None

    def __call__(self, *arguments: str) -> int:
        def open_sandbox(_: Cluster, **options: Any) -> AsyncSandbox:
            self.sandbox = AsyncSandbox(Cluster.transport(self.cluster), **options)
            return self.sandbox

        return main(["bench", *arguments], open_sandbox=open_sandbox)


def test_the_tables_have_a_line_for_each_kind_of_run(capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    assert bench("-n", "3", "--warm", "2") == 0
    printed, messages = capfd.readouterr()
    first, gap, *tables = printed.splitlines()
    assert first == f"runs of {PROGRAM} in namespace default: 3 cold, 3 attach, 3 warm"
    assert (gap, messages) == ("", "")
    seconds, phases = tables[:4], tables[5:]
    assert seconds[0].split() == ["seconds", "min", "p50", "p90", "p99", "max"]
    names = ["median of phase", "created", "scheduled", "started", "first output", "returned"]
    assert re.split("  +", phases[0]) == names
    for table in (seconds, phases):
        assert [line.split()[0] for line in table[1:]] == ["cold", "attach", "warm"]
        assert len({len(line) for line in table}) == 1, "aligned"
        assert all(re.fullmatch(r"\d+\.\d{3}", cell) for line in table[1:] for cell in line.split()[1:])
    # Three of each kind are counted, the first of each is not.
    assert [request["code"] for request in bench.runner.requests] == [PROGRAM] * 8
    assert bench.cluster.objects("jobs") == []


def test_the_json_object_has_statistics_and_samples(capfd: pytest.CaptureFixture[str]) -> None:
    assert Bench()("-n", "2", "--warm", "1", "--json", "--namespace", "default", "--timeout", "9") == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed.keys() == {"namespace", "program", "runs", "warm", "results", "cold_starts"}
    assert (printed["namespace"], printed["runs"], printed["warm"], printed["cold_starts"]) == ("default", 2, 1, 0)
    for kind in ("cold", "attach", "warm"):
        result = printed["results"][kind]
        assert result["runs"] == len(result["samples"]) == 2
        assert list(result["seconds"]) == ["min", "p50", "p90", "p99", "max"]
        assert list(result["phases"]) == ["created", "scheduled", "started", "first_output", "returned"]
    assert printed["results"]["warm"]["phases"]["started"] == 0
    assert printed["results"]["cold"]["phases"]["started"] > 0


def test_each_run_starts_when_all_pods_wait_and_no_job_is_deleted() -> None:
    bench = Bench()
    respond, seen = bench.runner._respond, []

    def observe(request: dict[str, Any]) -> bytes:
        seen.append([job["metadata"].get("annotations", {}) for job in bench.cluster.objects("jobs")])
        return respond(request)

    bench.runner._respond = observe
    assert bench("-n", "2", "--warm", "2") == 0
    # An attached run beside two pods that wait; a warm one, beside one that waits and one that takes its place.
    assert [sum(each.get(ANNOTATION) == "attach" for each in jobs) for jobs in seen] == [1, 0] * 3
    assert {len(jobs) for jobs in seen[::2]} == {3}
    assert all(len(jobs) in (2, 3) for jobs in seen[1::2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "agents"], "--runs: must be an integer, got 'agents' (--namespace NAME sets the namespace)"),
        (["-n", "0"], "--runs: must be between 1 and 10000, got 0"),
        (["--warm", "0"], "--warm: must be between 1 and 1000, got 0"),
        (["--warm", "1001"], "--warm: must be between 1 and 1000, got 1001"),
        (["--delivery", "env"], "unknown option --delivery"),
        (["--local", "--context", "x"], "--local cannot be combined with --context"),
        (["--", "x"], "arguments after -- are only allowed with gke-sandbox run"),
        (["script.py"], "unexpected argument 'script.py'"),
        (["--memory", "1"], "--memory"),
    ],
)
def test_wrong_usage_is_one_message(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    printed, messages = capfd.readouterr()
    assert printed == ""
    assert messages.startswith(f"gke-sandbox: error: {message}")


def test_a_refusal_by_admission_is_found_before_anything_is_created(capfd: pytest.CaptureFixture[str]) -> None:
    webhook = Respond(403, "Forbidden", 'admission webhook "policy.example.com" denied the request: no Jobs')
    bench = Bench(Fault(webhook, Match("create", "jobs"), times=None))
    assert bench("-n", "1", "--warm", "1") == 125
    printed, messages = capfd.readouterr()
    assert printed == ""
    assert "no program can run as configured" in messages


def test_pods_that_cannot_wait_end_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    assert Bench(Fault(BadImage(), times=None))("-n", "1", "--json") == 125
    printed, _ = capfd.readouterr()
    error = json.loads(printed)["error"]
    assert error["message"].startswith("no warm pod: ")
    assert "image" in error["message"]


def test_a_run_that_fails_ends_the_measurement_after_the_tables_so_far(capfd: pytest.CaptureFixture[str]) -> None:
    runner = WaitingRunner()
    fine = runner._respond

    def respond(request: dict[str, Any]) -> bytes:
        return fine(request) if len(runner.requests) < 5 else err("no\n") + exit_frame(3)

    runner._respond = respond
    assert Bench(runner=runner)("-n", "5", "--warm", "1") == 125
    printed, messages = capfd.readouterr()
    assert printed.startswith(f"runs of {PROGRAM} in namespace default: 2 cold, 1 attach, 1 warm\n")
    assert "the program did not succeed: exit code 3 (no)" in messages


def test_a_warm_run_that_started_cold_is_not_counted(capfd: pytest.CaptureFixture[str]) -> None:
    # The connections: a warm pod, an attached run, a warm pod (the one that is cut).
    cut = Fault(CutAttach(after=50, direction="input"), skip=2)
    assert Bench(cut)("-n", "2", "--warm", "1") == 0
    printed, messages = capfd.readouterr()
    assert "2 cold, 2 attach, 1 warm" in printed
    assert "note: 1 run that was meant to be warm started in a new pod and is not counted" in messages


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 2.0], 90) == 2.0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(number: signal.Signals, status: int, tmp_path: Path) -> None:
    process = start_real(
        ["bench", "--local", "--isolation", "process", "--warm", "2", "-n", "1000", "--label", "a=b"],
        env={"PATH": "", "HOME": str(tmp_path)},
    )
    end = time.monotonic() + 20
    while len(running := descendants(process.pid)) < 3:  # The supervisor and two pods.
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == status
    assert f"interrupted by {number.name}; no Job is left in the cluster".encode() in messages
    while left := [pid for pid in running if runs(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and their children."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(each) for thread in threads for each in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(each for child in children for each in descendants(child))]


def runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

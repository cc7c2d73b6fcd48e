"""Programs in warm pods find nothing of each other; `.ci/run` does this with 1,000 programs."""

from __future__ import annotations

import json
from functools import partial

import anyio
import pytest

from gke_sandbox import Cluster, Sandbox
from gke_sandbox.cluster import Isolation
from gke_sandbox.local.runtimes.gvisor import GVisorRuntime, GVisorUnavailable

from .marks import PROGRAM, leave_marks, problems

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("isolation", "runs", "warm"), [("process", 12, 4), ("gvisor", 4, 2)])
def test_programs_in_warm_pods_find_no_marks_of_others(isolation: Isolation, runs: int, warm: int) -> None:
    if isolation == "gvisor":
        try:
            GVisorRuntime()
        except GVisorUnavailable as why:
            pytest.skip(str(why))
    results = anyio.run(partial(leave_marks, isolation, runs=runs, warm=warm))
    assert len(results) == runs
    assert problems(results) == []


def test_a_mark_would_be_found() -> None:
    with Sandbox(Cluster.local("process")) as sandbox:
        result = sandbox.run(
            PROGRAM, files={"given-1": "2", "mark-0": ""}, args=["1", "process"], env={"MARK_0": ""}
        )
    found = json.loads(result.stdout)["found"]
    assert any(path.endswith("/mark-0") for path in found)
    assert {"MARK_0", "given", "stdin"} <= set(found)

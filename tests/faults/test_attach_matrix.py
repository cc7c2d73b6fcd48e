"""Each fault of an attached connection and of its pod: check the outcome, and that no program runs twice."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from gke_sandbox import ResultLost

from .attach_cells import (
    FAULTS,
    HANDSHAKE_FAULTS,
    INPUT_FAULTS,
    LOG_FAULTS,
    OUTPUT_FAULTS,
    AttachCell,
    all_cells,
    run,
)
from .cells import OUTPUT, STARTUP_TIMEOUT, TIMEOUT

pytestmark = pytest.mark.slow

SUCCESS = "succeeded"
REFUSED = {
    "handshake: 400, upgrade required": "BadRequest",
    "handshake: 401": "Unauthorized",
    "handshake: 403": "Forbidden",
    "handshake: 403 without a reason": "Forbidden",
    "handshake: 409": "AlreadyExists",
    "handshake: 410": "Expired",
}
# The end of a pod to which the program was sent.
KILLED = "killed, output may be missing"
OUT_OF_MEMORY = "out_of_memory, output may be missing"
LOST = {
    # The request may have arrived.
    "never reads": "ResultLost",
    "never starts the program": "ResultLost",
    **{
        f"{how} {when}": outcome
        for how, outcome in {
            "exits with 0": "ResultLost",
            "exits with 1": "ResultLost",
            "exits with 125": "ResultLost",
            "is killed": KILLED,
            "is out of memory": OUT_OF_MEMORY,
        }.items()
        for when in ("while it waits", "with the request")
    },
    "kubelet away after 0.3 s": "ResultLost",
    "evicted after 0.3 s": KILLED,
    "preempted after 0 s": KILLED,
    "preempted after 0.3 s": KILLED,
    "node shut down after 0.3 s": KILLED,
}
ONCE = {
    **REFUSED,
    **LOST,
    "exits with 1 at once": "StartError",
    # While a kubelet is away, nothing can be sent to its pods.
    "kubelet away after 0 s": "StartError",
}
# The program was certainly not sent, or has certainly not started, in any of the pods.
NOT_SENT = [
    *HANDSHAKE_FAULTS,
    *(fault for fault in OUTPUT_FAULTS if "before the start frame" in fault),
    *(fault for fault in INPUT_FAULTS if fault != "cut after the request"),
    *(f"{how} at once" for how in ("exits with 0", "exits with 125", "is killed", "is out of memory")),
    "evicted after 0 s",
    "node shut down after 0 s",
]
ALWAYS = {**dict.fromkeys(NOT_SENT, "StartError"), **ONCE}
# Without a warm pod a run starts cold, with its program in a ConfigMap. These faults happen to cold pods, too.
WARM_ALWAYS = {
    **LOST,
    "evicted after 0 s": KILLED,
    "node shut down after 0 s": KILLED,
    "kubelet away after 0 s": "ResultLost",
}

CELLS = list(all_cells())


def expected(cell: AttachCell) -> str:
    if cell.fault in LOG_FAULTS:
        # The status of the container is the program's, if it has certainly started.
        ended = cell.code and "cut after frame 2" in cell.fault and cell.fault.endswith((": silent", ": empty"))
        return "failed, output may be missing" if ended else "ResultLost"
    if cell.kind == "attach":
        return (ALWAYS if cell.always else ONCE).get(cell.fault, SUCCESS)
    return (WARM_ALWAYS if cell.always else LOST).get(cell.fault, SUCCESS)


@pytest.fixture(autouse=True)
def no_log_output(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gke_sandbox")


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_fault_ends_in_the_expected_result_or_error_and_no_program_runs_twice(
    cell: AttachCell, record_property: Callable[[str, object], None]
) -> None:
    outcome = run(cell)
    record_property("leftovers", len(outcome.left))
    assert outcome.happened, "the fault did not happen: this cell tests nothing"
    assert str(outcome) == expected(cell)
    assert outcome.programs <= 1, "no program runs twice"
    assert outcome.left == []
    assert [left for left in outcome.left_at_close if left.startswith("jobs/")] == []
    assert outcome.ended_after <= STARTUP_TIMEOUT + TIMEOUT + 30
    assert outcome.requests <= 45
    if outcome.error is not None:
        assert outcome.error.may_have_run is isinstance(outcome.error, ResultLost)
        assert outcome.error.may_have_run or not outcome.programs
        assert len(str(outcome.error)) < 600
    elif not outcome.result.output_truncated:  # type: ignore[union-attr]
        assert outcome.programs == 1
        assert outcome.result.stdout == "".join(OUTPUT), "no byte twice, none missing"  # type: ignore[union-attr]


def test_the_matrix_has_every_cell() -> None:
    assert len(CELLS) == len(set(CELLS)) == 4 * (len(FAULTS) + len(LOG_FAULTS)) > 500
    assert set(ALWAYS) | set(WARM_ALWAYS) <= set(FAULTS)

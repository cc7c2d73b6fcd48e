"""Every request of an execution, and every way in which it can fail: what comes of it, and nothing is left."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from gke_sandbox import ResultLost

from .cells import (
    ANSWERS,
    DEADLINE,
    EVENTS,
    HASTY,
    IN_HASTE,
    LOG,
    OTHERS,
    OUTPUT,
    REQUESTS,
    TIMEOUT,
    WATCHES,
    Cell,
    Outcome,
    all_cells,
    run,
)

SUCCESS = "succeeded"
REFUSED = {"401": "Unauthorized", "403": "Forbidden", "404": "NotFound"}
EXISTS = {"409": "AlreadyExists"}
CONFLICT = {"409, Conflict": "Conflict"}
EXPIRED = {"410": "Expired"}

# A fault that strikes once and is not in here costs nothing but time.
ONCE: dict[str, dict[str, str]] = {
    "list pods": {**REFUSED, **EXISTS},
    # A watch that is forbidden is done without: the pods are listed again and again.
    "watch pods": {**REFUSED, **EXISTS, "403": SUCCESS},
    "create job": {**REFUSED, **EXISTS, **EXPIRED},
    "get job": {**REFUSED, **EXISTS, **EXPIRED},
    "create configmap": {**REFUSED, **EXISTS, **EXPIRED},
    # A 404 that does not name the pod is retried.
    # A log that begins with something else at the second reading counts as rotated.
    # Without the permission to read it the result of a program that has run is lost.
    "read log": {
        "401": "ResultLost",
        "403": "ResultLost",
        **dict.fromkeys(["garbage", "garbage from the start"], "succeeded, output may be missing"),
    },
    # The result is there before the deletion, whose failure leaves the Job to its deadline.
    "delete job": {},
    # Without them less is known, and nothing is lost.
    "list events": {},
}

# What cannot be had at all. A fault that strikes each time and is not in here is survived.
BROKEN = [fault for fault in ANSWERS if fault not in {**REFUSED, **EXISTS, **EXPIRED}]
NETWORK = [fault for fault in BROKEN if fault.startswith(("connection", "reset", "stall"))]
SERVER = [fault for fault in BROKEN if fault.startswith("5")]
BUSY = [fault for fault in BROKEN if fault.startswith("429")]


def by(faults: list[str], what: str) -> dict[str, str]:
    return dict.fromkeys(faults, what)


# An answer that cannot be read is asked for again: 409, and then the object is there to be read.
NOT_MADE = {
    **by(NETWORK, "NetworkError"),
    **by(SERVER, "ServerError"),
    **by(BUSY, "TooManyRequests"),
    **CONFLICT,
}
# What arrived though its answer did not makes the program run, and that is seen. What may have arrived must not be
# begun anew, nor called a program that has not run.
ARRIVED = [fault for fault in BROKEN if ", carried out" in fault or fault.startswith("stall")]
NO_PROGRAM = {
    **by([*NETWORK, *SERVER], "ResultLost"),
    **by([*ARRIVED, "reset in the middle"], SUCCESS),
    **by(BUSY, "TooManyRequests"),
    **CONFLICT,
    "connection refused": "NetworkError",
}
ALWAYS: dict[str, dict[str, str]] = {
    # Without lists nobody can see the pods: the program may have run.
    "list pods": {**ONCE["list pods"], **by([*BROKEN, "410"], "ResultLost")},
    # A watch that never works is made up for by looking at the pods, which takes a second.
    "watch pods": ONCE["watch pods"],
    "create job": {**ONCE["create job"], **NOT_MADE},
    "get job": {**ONCE["get job"], **by([*BROKEN], "ServerError"), **NOT_MADE},
    "create configmap": {**ONCE["create configmap"], **NO_PROGRAM},
    # The pod's word alone, without the log's end, is no success.
    "read log": {
        **ONCE["read log"],
        **by([*BROKEN, "404", *EXISTS, *EXPIRED], "ResultLost"),
        **by([cut for cut in LOG if not cut.endswith("after frame 4")], "ResultLost"),
    },
    "delete job": {},
    # Without them less is known, and nothing is lost.
    "list events": {},
}

CELLS = list(all_cells())


def expected(cell: Cell) -> str:
    if cell.request == "create job" and cell.startup_timeout == HASTY and cell.fault.startswith("stall"):
        # The client's own timeout, after which it would ask again, is longer.
        return "NetworkError"
    table = ALWAYS if cell.always else ONCE
    return table[cell.request].get(cell.fault, SUCCESS)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gke_sandbox")


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_each_failure_ends_in_the_result_or_in_one_error_and_leaves_nothing(
    cell: Cell, record_property: Callable[[str, object], None]
) -> None:
    outcome = run(cell)
    # Counted and told at the end of the test run: see tests/conftest.py.
    record_property("leftovers", len(outcome.left))
    if cell.request == "list events":
        assert outcome.ended_after < 12, "the pod is seen to start, whatever becomes of the Events"
    assert outcome.happened, "the fault did not happen: this cell shows nothing"
    assert str(outcome) == expected(cell)
    assert outcome.started <= 1, "no program runs twice"
    assert outcome.ended_after <= cell.startup_timeout + TIMEOUT + 30
    if cell.request in ("create job", "get job", "create configmap") and outcome.result is None:
        assert outcome.ended_after <= cell.startup_timeout + 3.5
    # Where nothing is seen two questions are asked every two seconds.
    assert outcome.requests <= (60 if cell.request.startswith("list") else 40)
    assert outcome.left == [], f"still there after {DEADLINE:g} s"
    if cell.request != "delete job":
        assert [left for left in outcome.left_at_close if left.startswith("jobs/")] == []
    check_result(outcome)
    check_error(cell, outcome)


def check_result(outcome: Outcome) -> None:
    if outcome.result is not None and not outcome.result.output_truncated:
        assert outcome.result.stdout == "".join(OUTPUT), "no byte twice, none missing"


# What the message says of the request, and of what went wrong with it.
ABOUT = {
    "list pods": "/pods",
    "watch pods": "/pods",
    "create job": "/jobs",
    "get job": "/jobs",
    "create configmap": "/configmaps",
    "read log": "/log",
}
WENT_WRONG = {
    "connection refused": "cannot reach",
    "reset": "no complete response from .*(broke|closed)",
    "stall": "fell silent|no complete response (with)?in",
    "truncated": "not a JSON object",
    "garbage": "not a JSON object",
    **{f"{code}": f"{code}" for code in (401, 403, 404, 409, 410, 429, 500, 502, 503, 504)},
}
# A log may hold and lack whatever it likes.
NO_ERROR = ("truncated", "garbage", "stall", "cut short")


def check_error(cell: Cell, outcome: Outcome) -> None:
    """The message names what failed: the request, and what the server or the network said."""
    if outcome.error is None:
        return
    said = str(outcome.error)
    if cell.request == "read log" and cell.fault.startswith(NO_ERROR):
        assert "log does not contain the result" in said
    else:
        assert ABOUT[cell.request] in said, said
        wrong = next(words for fault, words in WENT_WRONG.items() if cell.fault.startswith(fault))
        assert re.search(wrong, said), said
    if isinstance(outcome.error, ResultLost):
        assert "may have run" in outcome.error.hint
    assert len(said) < 600, said


def test_the_matrix_is_whole() -> None:
    each = len(REQUESTS) * len(ANSWERS) + len(EVENTS) + len(LOG) + 3 * len(IN_HASTE)
    assert len(CELLS) == len(set(CELLS)) == 2 * each + len(WATCHES) * len(OTHERS) > 500

"""Each request of an execution fails in each possible way: check the outcome, and that nothing is left."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest

from gke_sandbox import ResultLost
from gke_sandbox.errors import AlreadyExists, Conflict, Expired, NotFound

from .cells import (
    DEADLINE,
    EVENTS,
    LOG,
    OTHERS,
    OUTPUT,
    REQUESTS,
    RESPONSES,
    SHORT_STARTUP_FAULTS,
    SHORT_STARTUP_TIMEOUT,
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

# Outcomes of faults that happen once. If a fault is not listed, the run succeeds, only later.
ONCE: dict[str, dict[str, str]] = {
    "list pods": {**REFUSED, **EXISTS},
    # If watching is forbidden, the pods are listed periodically instead.
    "watch pods": {**REFUSED, **EXISTS, "403": SUCCESS},
    "create job": {**REFUSED, **EXISTS, **EXPIRED},
    # The response before it was lost, so the server may have just started: a 403 is retried.
    "get job": {**REFUSED, **EXISTS, **EXPIRED, "403": SUCCESS},
    "create configmap": {**REFUSED, **EXISTS, **EXPIRED},
    # A 404 that does not name the pod is retried.
    # Without permission to read the log, the result of a program that ran is lost.
    "read log": {
        "401": "ResultLost",
        "403": "ResultLost",
    },
    # The result is known before the deletion. If the deletion fails, the Job ends at its deadline.
    "delete job": {},
    # Without Events only the cause may be missing.
    "list events": {},
}

# Faults after which a request has no usable response, by kind.
BROKEN = [fault for fault in RESPONSES if fault not in {**REFUSED, **EXISTS, **EXPIRED}]
NETWORK = [fault for fault in BROKEN if fault.startswith(("connection", "reset", "stall"))]
SERVER = [fault for fault in BROKEN if fault.startswith("5")]
BUSY = [fault for fault in BROKEN if fault.startswith("429")]


def by(faults: list[str], outcome: str) -> dict[str, str]:
    return dict.fromkeys(faults, outcome)


# If a response cannot be read, the request is retried, gets 409, and the existing object is read.
NOT_CREATED = {
    **by(NETWORK, "NetworkError"),
    **by(SERVER, "ServerError"),
    **by(BUSY, "TooManyRequests"),
    **CONFLICT,
}
# If the request arrived and only its response was lost, the program runs, and the client sees that. If the request
# may have arrived, the client must neither start over nor report that the program has not run.
ARRIVED = [fault for fault in BROKEN if ", carried out" in fault or fault.startswith("stall")]
NO_PROGRAM = {
    **by([*NETWORK, *SERVER], "ResultLost"),
    **by([*ARRIVED, "reset in the middle"], SUCCESS),
    **by(BUSY, "TooManyRequests"),
    **CONFLICT,
    "connection refused": "NetworkError",
}
ALWAYS: dict[str, dict[str, str]] = {
    # Without lists the client never sees the pods: the program may have run.
    "list pods": {**ONCE["list pods"], **by([*BROKEN, "410"], "ResultLost")},
    # If the watch never works, listing the pods replaces it, which takes a second.
    "watch pods": ONCE["watch pods"],
    "create job": {**ONCE["create job"], **NOT_CREATED},
    "get job": {**ONCE["get job"], **REFUSED, **by([*BROKEN], "ServerError"), **NOT_CREATED},
    "create configmap": {**ONCE["create configmap"], **NO_PROGRAM},
    # The status of the pod is not a success without the end of the log.
    "read log": {
        **ONCE["read log"],
        **by([*BROKEN, "404", *EXISTS, *EXPIRED], "ResultLost"),
        **by([cut for cut in LOG if not cut.endswith("after frame 4")], "ResultLost"),
    },
    "delete job": {},
    # Without Events only the cause may be missing.
    "list events": {},
}

CELLS = list(all_cells())


def expected(cell: Cell) -> str:
    if (
        cell.request == "create job"
        and cell.startup_timeout == SHORT_STARTUP_TIMEOUT
        and cell.fault.startswith("stall")
    ):
        # The timeout of the HTTP client, after which it would retry, is longer.
        return "NetworkError"
    table = ALWAYS if cell.always else ONCE
    return table[cell.request].get(cell.fault, SUCCESS)


@pytest.fixture(autouse=True)
def no_log_output(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gke_sandbox")


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_each_fault_ends_in_the_expected_result_or_error_and_leaves_nothing(
    cell: Cell, record_property: Callable[[str, object], None]
) -> None:
    outcome = run(cell)
    # Printed at the end of the test run: see tests/conftest.py.
    record_property("leftovers", len(outcome.left))
    if cell.request == "list events":
        assert outcome.ended_after < 12, "the client sees that the pod starts, with or without Events"
    assert outcome.happened, "the fault did not happen: this cell tests nothing"
    assert str(outcome) == expected(cell)
    assert outcome.started <= 1, "no program runs twice"
    assert outcome.ended_after <= cell.startup_timeout + TIMEOUT + 30
    if cell.request in ("create job", "get job", "create configmap") and outcome.result is None:
        assert outcome.ended_after <= cell.startup_timeout + 3.5
    # A client that cannot see the pod sends two requests every two seconds. Pauses after a conflict are random.
    assert outcome.requests <= (60 if cell.request.startswith("list") else 45 if "Conflict" in cell.fault else 40)
    assert outcome.left == [], f"still there after {DEADLINE:g} s"
    if cell.request != "delete job":
        assert [left for left in outcome.left_at_close if left.startswith("jobs/")] == []
    check_result(outcome)
    check_error(cell, outcome)


def check_result(outcome: Outcome) -> None:
    if outcome.result is not None and not outcome.result.output_truncated:
        assert outcome.result.stdout == "".join(OUTPUT), "no byte twice, none missing"


# Parts of the message that identify the request and the failure.
REQUEST_TEXTS = {
    "list pods": "/pods",
    "watch pods": "/pods",
    "create job": "/jobs",
    "get job": "/jobs",
    "create configmap": "/configmaps",
    "read log": "/log",
}
FAILURE_PATTERNS = {
    "connection refused": "cannot reach",
    "reset": "no complete response from .*(broke|closed)",
    "stall": "fell silent|no complete response (with)?in",
    "truncated": "not a JSON object",
    "garbage": "not a JSON object",
    **{f"{code}": f"{code}" for code in (401, 403, 404, 409, 410, 429, 500, 502, 503, 504)},
}
# These faults only change the content of a log: no request fails.
NO_ERROR = ("truncated", "garbage", "stall", "cut short")


def check_error(cell: Cell, outcome: Outcome) -> None:
    """Check that the message names the request and the error of the server or the network."""
    if outcome.error is None:
        return
    message = str(outcome.error)
    # A working server does not send these for the requests of a run.
    assert outcome.error.hint or isinstance(outcome.error, (AlreadyExists, Conflict, Expired, NotFound))
    if cell.request == "read log" and cell.fault.startswith(NO_ERROR):
        assert "log does not contain the result" in message
    else:
        assert REQUEST_TEXTS[cell.request] in message, message
        pattern = next(pattern for fault, pattern in FAILURE_PATTERNS.items() if cell.fault.startswith(fault))
        assert re.search(pattern, message), message
    if isinstance(outcome.error, ResultLost):
        assert "may have run" in outcome.error.hint
    assert len(message) < 600, message


def test_the_matrix_has_every_cell() -> None:
    each = len(REQUESTS) * len(RESPONSES) + len(EVENTS) + len(LOG) + 3 * len(SHORT_STARTUP_FAULTS)
    assert len(CELLS) == len(set(CELLS)) == 2 * each + len(WATCHES) * len(OTHERS) > 500

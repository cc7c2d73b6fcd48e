"""The tree of errors."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from gke_sandbox import errors
from gke_sandbox.errors import (
    ApiError,
    Forbidden,
    NetworkError,
    PayloadTooLarge,
    ResultLost,
    SandboxClosed,
    SandboxError,
    SpecError,
    StartError,
    StatusCause,
)

ERRORS = [
    SandboxError("what", hint="do this"),
    SpecError("cpu_limit", "is wrong", hint="mend it"),
    PayloadTooLarge("files", "too much", size=3, limit=2),
    Forbidden("no", code=403, reason="Forbidden", causes=(StatusCause("a", "b", "c"),), request="GET /x"),
    NetworkError("gone", sent=False, request="GET /x"),
    StartError("not started", reason="ErrImagePull", job="j", pod="p"),
    ResultLost("lost", job="j", stdout="o", stderr="e"),
    SandboxClosed("closed"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_copying_and_pickling(error: SandboxError, again) -> None:  # type: ignore[no-untyped-def]
    revived = again(error)
    assert type(revived) is type(error)
    assert str(revived) == str(error)
    assert vars(revived) == vars(error)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    missing = [name for name in errors.__all__ if name != "StatusCause" and name not in errors.__doc__]
    assert missing == []


def test_a_bad_value_is_a_value_error_and_an_answer_is_not() -> None:
    assert issubclass(SpecError, ValueError)
    assert not issubclass(ApiError, ValueError)


def test_only_an_error_that_comes_before_the_program_says_that_it_did_not_run() -> None:
    before = {type(error) for error in ERRORS if not error.may_have_run}
    assert before == {SpecError, PayloadTooLarge, StartError}


def test_tracebacks_contain_the_hint_once() -> None:
    error = SpecError("cpu_limit", "is wrong", hint="Use cpu_request.", mentions=("cpu_request",))
    renamed = error.renamed({"cpu_limit": "--cpu", "cpu_request": "--cpu-request"})
    for each, lines in (
        (error, ["cpu_limit: is wrong", "hint: Use cpu_request."]),
        (renamed, ["--cpu: is wrong", "hint: Use --cpu-request."]),
        (SandboxError("wrong"), ["wrong"]),
    ):
        shown = "".join(traceback.format_exception(each)).partition(": ")[2]
        assert shown.splitlines() == lines

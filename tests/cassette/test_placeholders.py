"""Generated names and what stands for them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox.cassette.placeholders import PLACEHOLDER, Bindings, ServerNames, escape, render, unify, used

NAMES = ServerNames("the runner's text", datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc))


def test_names_are_captured_from_a_request_and_stand_in_its_answer() -> None:
    bindings: Bindings = {}
    template = {"metadata": {"name": "<job-1>", "labels": {"s": "<session-1>"}}, "pod": "<job-1>-abcde"}
    actual = {"metadata": {"name": "gke-sandbox-77", "labels": {"s": "f00"}}, "pod": "gke-sandbox-77-abcde"}
    assert unify(template, actual, bindings, "") == []
    assert bindings == {"<job-1>": "gke-sandbox-77", "<session-1>": "f00"}
    assert render(template, bindings, NAMES) == actual


def test_one_placeholder_stands_for_one_name() -> None:
    assert unify(["<job-1>", "<job-1>"], ["a", "b"], {}, "") != []
    assert unify("<job-1>/<job-1>", "a/b", {}, "") != []
    assert unify("<job-1>/<job-1>", "a/a", {}, "") == []


def test_what_does_not_match_binds_nothing() -> None:
    bindings: Bindings = {}
    assert unify("x-<job-1>-y", "x-a-z", bindings, "") != []
    assert bindings == {}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("<time+0s>", "2026-11-23T12:00:00Z"),
        ("<time-61s>", "2026-11-23T11:58:59Z"),
        ("<time+1.5s>", "2026-11-23T12:00:01.500000Z"),
        ("<version-7>", "1007"),
        ("<node-2>", "node-2"),
        ("<runner>", "the runner's text"),
        ("<literal:job-1>", "<job-1>"),
        ("<literal:literal:uid-1>", "<literal:uid-1>"),
        ("<job>, <a>, <time>", "<job>, <a>, <time>"),
    ],
)
def test_what_the_server_chose_is_made_up(template: str, rendered: str) -> None:
    assert render(template, {}, NAMES) == rendered
    assert unify(template, rendered, {}, NAMES.runner) == []


def test_uids_are_made_up_the_same_every_time_and_differ() -> None:
    first, again, other = (render(text, {}, NAMES) for text in ("<uid-1>", "<uid-1>", "<uid-2>"))
    assert first == again != other


def test_a_name_that_no_request_has_brought_yet_cannot_be_rendered() -> None:
    with pytest.raises(KeyError):
        render({"name": "<job-1>"}, {}, NAMES)


def test_any_is_anything_even_no_text() -> None:
    for actual in ("", "300", 300, None, ["x"]):
        assert unify({"a": "<any>"}, {"a": actual}, {}, "") == []


@pytest.mark.parametrize(
    ("template", "actual", "said"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b: recorded 1, got 2"),
        ({"a": [1, 2]}, {"a": [1]}, "a: recorded 2 items, got 1"),
        ({"a": [{"b": "x"}]}, {"a": [{"b": "y"}]}, "a[0].b: recorded 'x', got 'y'"),
        ({"a": 1}, {}, "a: recorded 1, got nothing"),
        ({}, {"a": 1}, "a: recorded nothing, got 1"),
        ({"a": 1}, {"a": True}, "a: recorded 1, got True"),
        ({"a": 1}, {"a": "1"}, "a: recorded 1, got '1'"),
        ("x", None, "the body: recorded 'x', got None"),
    ],
)
def test_a_difference_says_where_and_what(template: Any, actual: Any, said: str) -> None:
    assert [str(each) for each in unify(template, actual, {}, "")] == [said]


def test_used_finds_names_in_keys_and_values_and_no_literals() -> None:
    value = {"<job-1>": ["<uid-2> and <literal:job-9>"], "x": 1}
    assert [found.group() for found in used(value)] == ["<job-1>", "<uid-2>"]


TEXTS = (
    st.text() | st.from_regex(PLACEHOLDER) | st.sampled_from(["<job-1>", "<any>", "<literal:runner>", "a<uid-3>b"])
)


@given(TEXTS)
def test_any_text_comes_back_that_was_escaped(text: str) -> None:
    assert render(PLACEHOLDER.sub(escape, text), {}, NAMES) == text
    assert unify(PLACEHOLDER.sub(escape, text), text, {}, "") == []

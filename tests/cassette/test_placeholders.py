"""Generated names and their placeholders."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox.cassette.placeholders import (
    PLACEHOLDER,
    Bindings,
    Difference,
    GeneratedNames,
    escape_literal,
    match_template,
    placeholders_in,
    render,
)

NAMES = GeneratedNames("the runner's text", datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc))


def differences(template: Any, actual: Any, bindings: Bindings | None = None) -> list[Difference]:
    return match_template(template, actual, {} if bindings is None else bindings, NAMES)


def test_names_are_captured_from_a_request_and_used_in_its_response() -> None:
    bindings: Bindings = {}
    template = {"metadata": {"name": "<job-1>", "labels": {"s": "<session-1>"}}, "pod": "<job-1>-abcde"}
    actual = {"metadata": {"name": "gke-sandbox-77", "labels": {"s": "f00"}}, "pod": "gke-sandbox-77-abcde"}
    assert differences(template, actual, bindings) == []
    assert bindings == {"<job-1>": "gke-sandbox-77", "<session-1>": "f00"}
    assert render(template, bindings, NAMES) == actual


def test_a_placeholder_has_one_value() -> None:
    assert differences(["<job-1>", "<job-1>"], ["a", "b"]) != []
    assert differences("<job-1>/<job-1>", "a/b") != []
    assert differences("<job-1>/<job-1>", "a/a") == []
    assert differences("<job-1>", "b", {"<job-1>": "a"}) != []


def test_text_that_does_not_match_binds_nothing() -> None:
    bindings: Bindings = {}
    assert differences("x-<job-1>-y", "x-a-z", bindings) != []
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
        ("<time-62000000000s>", "<time-62000000000s>"),
        (f"<version-{'9' * 5000}>", f"<version-{'9' * 5000}>"),
    ],
)
def test_names_of_the_server_are_generated(template: str, rendered: str) -> None:
    assert render(template, {}, NAMES) == rendered
    assert differences(template, rendered) == []


def test_generated_uids_differ_from_each_other_and_never_change() -> None:
    first, again, other = (render(text, {}, NAMES) for text in ("<uid-1>", "<uid-1>", "<uid-2>"))
    assert first == again != other


def test_a_name_that_no_request_had_yet_cannot_be_rendered() -> None:
    with pytest.raises(KeyError):
        render({"name": "<job-1>"}, {}, NAMES)


def test_a_part_that_occurs_again_is_rendered_once() -> None:
    part, known = {"name": "<job-1>"}, dict[int, Any]()
    one, other = {"metadata": part}, [part, {"other": "<job-1>"}]
    first = render(one, {"<job-1>": "a"}, NAMES, known)
    again = render(other, {"<job-1>": "a"}, NAMES, known)
    assert again == [{"name": "a"}, {"other": "a"}]
    assert again[0] is first["metadata"]


def test_any_matches_every_value() -> None:
    for actual in ("", "300", 300, None, ["x"]):
        assert differences({"a": "<any>"}, {"a": actual}) == []


def test_an_unknown_runner_matches_every_text() -> None:
    unknown = GeneratedNames(None, NAMES.start)
    assert match_template("<runner>", "some text", {}, unknown) == []
    assert differences("<runner>", "some text") != []


@pytest.mark.parametrize(
    ("template", "actual", "shown"),
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
def test_a_difference_shows_its_path_and_both_values(template: Any, actual: Any, shown: str) -> None:
    assert [str(each) for each in differences(template, actual)] == [shown]


def test_placeholders_are_found_in_keys_and_values_and_literals_are_not() -> None:
    value = {"<job-1>": ["<uid-2> and <literal:job-9>"], "x": 1}
    assert [found.group() for found in placeholders_in(value)] == ["<job-1>", "<uid-2>"]


TEXTS = (
    st.text() | st.from_regex(PLACEHOLDER) | st.sampled_from(["<job-1>", "<any>", "<literal:runner>", "a<uid-3>b"])
)


@given(TEXTS)
def test_escaped_text_is_rendered_unchanged(text: str) -> None:
    assert render(PLACEHOLDER.sub(escape_literal, text), {}, NAMES) == text
    assert differences(PLACEHOLDER.sub(escape_literal, text), text) == []

"""The strict YAML reader."""

from __future__ import annotations

import pytest

from gke_sandbox.kube.config.yaml import YamlProblem, read_yaml


def read(text: str, **options: bool) -> object:
    return read_yaml(text, lambda text, tag, plain: (text, tag, plain), max_values=20, **options)


def test_the_callback_gets_the_text_tag_and_style_of_each_scalar() -> None:
    assert read("[a, '1', !t b]") == [
        ("a", None, True),
        ("1", None, False),
        ("b", "!t", False),
    ]


def test_a_mapping_knows_the_lines_of_its_keys() -> None:
    value = read_yaml("# comment\n- a: 1\n  b:\n  - 2\n", lambda text, *_: text, max_values=20)
    assert value == [{"a": "1", "b": ["2"]}]
    assert (value[0].line, value[0].line_of("b"), value[0].line_of("missing")) == (2, 3, 2)


def test_an_alias_is_the_same_object() -> None:
    value = read_yaml("[&x [a], *x]", lambda text, *_: text, max_values=20)
    assert value == [["a"], ["a"]]
    assert value[0] is value[1]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: b\nc: d\na: e", 3, "duplicate key 'a'"),
        ("[" + "a, " * 20 + "]", 1, "more than 20 values, aliases included"),
        ("a" * 256 * 20, 1, "more than 20 values, aliases included"),
        ("a: b\n\n", 2, "cut off: the last line must be `...`"),
    ],
)
def test_a_problem_has_a_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(YamlProblem) as caught:
        read_yaml(text, lambda text, *_: text, max_values=20, explicit_end=True)
    assert (caught.value.line, caught.value.problem) == (line, problem)


def test_a_document_may_be_required_to_end_with_dots() -> None:
    assert read_yaml("a: b\n...", lambda text, *_: text, max_values=20, explicit_end=True) == {"a": "b"}


def test_a_problem_with_a_scalar_has_its_line() -> None:
    def refuse(text: str, *_: object) -> object:
        raise ValueError(f"not a number: {text}")

    with pytest.raises(YamlProblem) as caught:
        read_yaml("-\n- b", refuse, max_values=20)
    assert (caught.value.line, caught.value.problem) == (1, "not a number: ")

"""Valid and invalid names of input and output files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._wire.paths import printable_name, safe_name, safe_output_name


@pytest.mark.parametrize(
    ("given_", "safe"),
    [
        ("a.txt", "a.txt"),
        ("./a.txt", "a.txt"),
        ("a//b/./c", "a/b/c"),
        ("..a/b..", "..a/b.."),
        ("...", "..."),
        (" a ", " a "),
        ("naïve/📈.csv", "naïve/📈.csv"),
        ("a:b", None),
        ("ab:c", "ab:c"),
        ("~/x", "~/x"),
        ("-rf", "-rf"),
    ],
)
def test_a_safe_name_is_normalized(given_: str, safe: str | None) -> None:
    if safe is None:
        with pytest.raises(ValueError, match="drive letter"):
            safe_name(given_)
    else:
        assert safe_name(given_) == safe


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (".", "directory"),
        ("./", "directory"),
        ("a/", "directory"),
        ("a/.", "directory"),
        ("..", r"'\.\.'"),
        ("../a", r"'\.\.'"),
        ("a/../b", r"'\.\.'"),
        ("a/..", r"'\.\.'"),
        ("/a", "absolute"),
        ("//a", "absolute"),
        ("a\0", "NUL"),
        ("a\nb", "control"),
        ("a\x7f", "control"),
        ("a\x85", "control"),
        ("\x1b[31m", "control"),
        ("a\\b", "backslash"),
        ("C:evil", "drive"),
        ("\udcff", "UTF-8"),
        ("x" * 256, "255"),
        ("é" * 128, "255"),
        ("a/" * 512 + "a", "1024"),
    ],
)
def test_an_unsafe_name_is_rejected_with_a_reason(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        safe_name(name)


def test_the_longest_safe_names_are_accepted() -> None:
    assert safe_name("x" * 255) == "x" * 255
    longest = "/".join(["x" * 204] * 5)
    assert len(longest) == 1024
    assert safe_name(longest) == longest


@given(st.text(alphabet="ab./\\\0é\n", max_size=12))
def test_a_safe_name_never_leaves_its_directory(name: str) -> None:
    try:
        safe = safe_name(name)
    except ValueError:
        return
    assert safe_name(safe) == safe
    assert not safe.startswith("/")
    assert all(part not in ("", ".", "..") for part in safe.split("/"))


@pytest.mark.parametrize(
    "char", [*"\u00ad\u061c\u200b\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\U000e0041\u2028\u2029"]
)
def test_the_name_of_an_output_file_has_no_format_characters(char: str) -> None:
    """The caller may use them in the name of an input, because the caller knows the name."""
    with pytest.raises(ValueError, match="format character or a line separator"):
        safe_output_name(f"a{char}b")
    assert safe_name(f"a{char}b") == f"a{char}b"
    assert char not in printable_name(f"a{char}b")


@pytest.mark.parametrize(
    "name",
    ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt", "\U0001f468\u200d\U0001f4bb.png", "a b/\u2603"],
)
def test_names_that_need_a_joiner_are_accepted(name: str) -> None:
    assert safe_output_name(name) == name


@given(st.text())
def test_a_printable_name_is_printable_and_unambiguous(name: str) -> None:
    shown = printable_name(name)
    assert shown.isprintable()
    # The codec reads other characters as Latin-1.
    escaped = shown.encode("ascii", "backslashreplace")
    assert escaped.decode("unicode_escape") == name

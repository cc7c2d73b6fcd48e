"""Valid and invalid names of input and output files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._wire.paths import safe_name


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

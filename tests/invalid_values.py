"""Invalid values of every kind, and the field in the resulting error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from gke_sandbox.errors import SpecError

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.none() | st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3) | st.integers(), st.text(max_size=3) | st.none(), max_size=2),
)


def refused_field(make: Callable[..., object], **given_: Any) -> str | None:
    try:
        make(**given_)
    except SpecError as error:
        return error.field
    return None

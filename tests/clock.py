"""Simulated time: trio's MockClock jumps to the next deadline when every task waits."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing

T = TypeVar("T")


def run_on_mock_clock(main: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run `main` on trio with a mock clock. It must not wait for threads, sockets or processes."""
    return trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))


def mock_clock(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test with its fixtures on the mock clock."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        run_on_mock_clock(functools.partial(test, **fixtures))

    return run

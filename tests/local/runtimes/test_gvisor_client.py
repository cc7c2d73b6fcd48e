"""Containers under gVisor: many at once, and behaviours that `test_process` tests in each run of the suite."""

from __future__ import annotations

import anyio
import pytest

from gke_sandbox.local.runtimes.gvisor import GVisorRuntime

from .client_behaviours import *  # noqa: F403
from .containers import python, run
from .gvisor_fixtures import *  # noqa: F403

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_five_start_at_once(runtime: GVisorRuntime) -> None:
    outputs: set[bytes] = set()

    async def one(number: int) -> None:
        outputs.add((await run(runtime, python(f"print({number})")))[1])

    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(one, number)
    assert outputs == {b"%d\n" % number for number in range(5)}

"""Agents from end to end: the model writes code, it runs on the embedded cluster, the model gets the result."""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.genai import types

from gke_sandbox import Cluster
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.errors import ReplayMismatch
from gke_sandbox.local.faults import BadImage, Fault, NoNode
from tests.adk.kit import ADK, QUIET, RUNS_IN_THREADS, aconverse, agent, block, converse, local, on, scripted, seen
from tests.pods import program

pytestmark = QUIET

OK, FAILED = types.Outcome.OUTCOME_OK, types.Outcome.OUTCOME_FAILED


@pytest.fixture(scope="module")
def executor() -> Iterator[GkeCodeExecutor]:
    with local(timeout_seconds=20) as made:
        yield made


def test_the_model_gets_the_output_of_its_code(executor: GkeCodeExecutor) -> None:
    talk = converse(agent(executor, block("print(6 * 7)"), "It is 42."))
    assert talk.last == "It is 42."
    assert [(each.outcome, each.output) for each in talk.outcomes] == [(OK, "Code execution result:\n42\n\n")]
    assert "Code execution result:\n42\n" in talk.asked[1]


def test_the_model_gets_the_traceback_and_corrects_its_code(executor: GkeCodeExecutor) -> None:
    wrong = "rows = [1, 2]\nprint('reading', len(rows))\nprint(rows[2])"
    talk = converse(agent(executor, block(wrong), block("print(rows := [1, 2])"), "Done."))
    assert [each.outcome for each in talk.outcomes] == [FAILED, OK]
    assert "IndexError: list index out of range" in talk.asked[1]
    assert "line 3" in talk.asked[1]
    assert "reading 2" in talk.asked[1]
    assert talk.last == "Done."


def test_a_warning_on_stderr_is_not_a_failure_and_the_model_gets_it(executor: GkeCodeExecutor) -> None:
    code = "import warnings\nprint('the result')\nwarnings.warn('deprecated')"
    talk = converse(agent(executor, block(code), "Done."))
    assert [each.outcome for each in talk.outcomes] == [OK]
    assert "the result\n" in talk.asked[1]
    assert "UserWarning: deprecated" in talk.asked[1]


def test_after_consecutive_failures_the_agent_continues_without_running_code(executor: GkeCodeExecutor) -> None:
    talk = converse(agent(executor, block("1/0"), block("2/0"), block("print('not run')")))
    assert [each.outcome for each in talk.outcomes] == [FAILED, FAILED]
    assert "not run" in talk.last


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_plot_that_the_program_saves_becomes_an_artifact(executor: GkeCodeExecutor) -> None:
    code = f"open('plot.png', 'wb').write({png()!r})\nprint('saved')"
    talk = converse(agent(executor, block(code), "See plot.png."))
    saved = talk.artifact("plot.png")
    assert saved is not None
    assert saved.inline_data is not None
    assert (saved.inline_data.mime_type, saved.inline_data.data) == ("image/png", png())
    assert "Saved artifacts:\n`plot.png`" in talk.asked[1]


def test_a_program_cannot_save_an_artifact_for_other_sessions_of_the_user(executor: GkeCodeExecutor) -> None:
    talk = converse(agent(executor, block("open('user:notes.md', 'w').write('obey')"), "Done."))
    assert talk.artifacts() == ["user_notes.md"]


def test_a_csv_file_is_explored_and_put_beside_the_code() -> None:
    pytest.importorskip("pandas")
    csv = types.Part.from_bytes(data=b"city,people\nBonn,331\nKiel,246\n", mime_type="text/csv")
    code = "import csv\nprint(sum(int(row['people']) for row in csv.DictReader(open('data_1_2.csv'))))"
    with local(optimize_data_file=True, timeout_seconds=50) as executor:
        talk = converse(agent(executor, block(code), "577"), types.Part(text="How many?"), csv)
    # Before 2.2, the code of google-adk calls a function that does not exist.
    explored = ADK >= (2, 2)
    assert [each.outcome for each in talk.outcomes] == [OK if explored else FAILED, OK]
    assert ("Total rows: 2" in talk.asked[0]) is explored
    assert "Code execution result:\n577" in talk.asked[1]


def test_the_model_gets_the_time_limit_and_the_output_until_then() -> None:
    code = "import time\nprint('step 1', flush=True)\ntime.sleep(600)"
    with local(timeout_seconds=1) as executor:
        talk = converse(agent(executor, block(code), "Too slow."))
    assert [each.outcome for each in talk.outcomes] == [FAILED]
    assert "killed at its time limit of 1 s" in talk.asked[1]
    assert "step 1" in talk.asked[1]


def test_endless_output_is_limited_in_memory_and_in_the_context_of_the_model() -> None:
    code = "import time\nwhile True: print('spam ' * 200, flush=True) or time.sleep(0.005)"
    with local(timeout_seconds=1, max_output_bytes=10_000) as executor:
        talk = converse(agent(executor, block(code), "Too much."))
    assert "killed at its time limit of 1 s" in talk.asked[1]
    assert "over the limit (max_output_bytes) and dropped" in talk.asked[1]
    assert len(talk.asked[1]) < 10_000


def test_large_output_of_a_successful_program_is_limited_by_max_output_bytes() -> None:
    with local(max_output_bytes=1000) as executor:
        talk = converse(agent(executor, block("print('x' * 5000)"), "Too much."))
    assert [each.outcome for each in talk.outcomes] == [OK]
    assert "4,001 more bytes of stdout were over the limit" in talk.asked[1]
    assert len(talk.asked[1]) < 2000


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        (BadImage("not found"), "was not run", "the image does not exist"),
        (NoNode(), "returned no result", "no node accepts the pod"),
    ],
)
def test_a_start_failure_is_reported_to_the_model_and_the_run_continues(
    fault: BadImage | NoNode, outcome: str, words: str
) -> None:
    # A node may still be created: only the timeout shows that it is missing.
    with on(scripted(program(), Fault(fault, times=None)), startup_timeout_seconds=0.5) as executor:
        talk = converse(agent(executor, block("print(1)"), "There is no sandbox."))
    assert [each.outcome for each in talk.outcomes] == [FAILED]
    assert words in talk.asked[1]
    assert f"{outcome}, and its code is not the cause" in talk.asked[1]
    assert talk.last == "There is no sandbox."


def test_a_program_that_is_too_large_is_reported_to_the_model() -> None:
    noise = random.Random(6).randbytes(1 << 20).hex()
    with local() as executor:
        talk = converse(agent(executor, block(f"data = '{noise}'"), "Too large."))
    assert "The program was not run: code" in talk.asked[1]


def test_two_agents_share_an_executor_and_their_jobs_have_their_names() -> None:
    cluster = seen()
    with on(cluster, labels={"team": "data"}) as executor:

        async def both() -> list[str]:
            first = agent(executor, block("print('from the first')"), "1", name="first")
            second = agent(executor, block("print('from the second')"), "2", name="second")
            talks = await asyncio.gather(aconverse(first), aconverse(second))
            return [talk.asked[1] for talk in talks]

        asked = asyncio.run(both())
    assert "from the first\n" in asked[0]
    assert "from the second\n" in asked[1]
    metadata = [job["metadata"] for job in cluster.jobs()]
    assert {each["labels"]["adk.agent.google.com/agent-name"] for each in metadata} == {"first", "second"}
    assert {each["labels"]["team"] for each in metadata} == {"data"}
    assert all(each["annotations"]["adk.agent.google.com/invocation-id"].startswith("e-") for each in metadata)
    assert cluster.jobs_left() == []


def test_twenty_sessions_at_once_each_get_their_own_result() -> None:
    cluster = seen()
    with on(cluster, timeout_seconds=50) as executor:

        async def session(number: int) -> str:
            talk = await aconverse(agent(executor, block(f"print({number} ** 2)"), "Done."))
            return talk.outcomes[0].output or ""

        async def all_of_them() -> list[str]:
            return await asyncio.gather(*(session(number) for number in range(20)))

        outputs = asyncio.run(all_of_them())
    assert outputs == [f"Code execution result:\n{number**2}\n\n" for number in range(20)]
    assert len(cluster.jobs()) == 20
    assert cluster.jobs_left() == []


def test_the_event_loop_is_not_blocked_while_code_runs(executor: GkeCodeExecutor) -> None:
    if not RUNS_IN_THREADS:
        pytest.skip("google-adk before 2.5 runs code on the event loop")
    ticks = 0

    async def main() -> None:
        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        await aconverse(agent(executor, block("import time; time.sleep(0.3)"), "Done."))
        ticking.cancel()

    asyncio.run(main())
    assert ticks > 10


def test_closing_the_executor_cancels_the_code_of_a_cancelled_run() -> None:
    """google-adk does not cancel executors, and asyncio waits for their threads at the end."""
    if not RUNS_IN_THREADS:
        pytest.skip("google-adk before 2.5 cannot be cancelled while code runs")
    cluster = seen()
    executor = on(cluster)

    async def main() -> None:
        with executor:
            talking = asyncio.create_task(aconverse(agent(executor, block("import time; time.sleep(600)"))))
            await asyncio.to_thread(cluster.asked.wait, 20)
            talking.cancel()

    asyncio.run(main())
    assert cluster.jobs_left() == []


def test_an_agent_on_a_cassette_needs_no_cluster(gke_sandbox_cassette: Cluster) -> None:
    with GkeCodeExecutor(cluster=gke_sandbox_cassette) as executor:
        talk = converse(agent(executor, block("print(1 / 0)"), block("print(6 * 7)"), "It is 42."))
    assert [each.outcome for each in talk.outcomes] == [FAILED, OK]
    assert "ZeroDivisionError" in talk.asked[1]
    assert "Code execution result:\n42" in talk.asked[2]


def test_code_that_was_not_recorded_is_reported_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    cassette = Path(__file__).parent / "cassettes" / "test_agent.test_an_agent_on_a_cassette_needs_no_cluster.yaml"
    executor = GkeCodeExecutor(cluster=Cluster.replay(cassette))
    talk = converse(agent(executor, block("print('something else')"), "Done."))
    assert "unexpected request (not recorded, or recorded fewer times)" in caplog.text
    assert "The program was not run, and its code is not the cause" in talk.asked[1]
    with pytest.raises(ReplayMismatch):
        executor.close()


@pytest.fixture
def gke_sandbox_cluster() -> Cluster:
    """The cluster to record with --gke-sandbox-record."""
    return Cluster.local("process")

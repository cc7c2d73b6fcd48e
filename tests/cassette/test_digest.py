"""Which recorded Job a new Job replays: the digest of its program decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gke_sandbox import AsyncSandbox
from gke_sandbox._wire.manifests import PROGRAM_ANNOTATION, build
from gke_sandbox._wire.program import Program
from gke_sandbox.cassette import Cassette, Player, ReplayTransport, load
from gke_sandbox.cassette.model import Step
from gke_sandbox.errors import ApiError, ReplayMismatch
from gke_sandbox.local.faults import Fault, Match, Respond
from gke_sandbox.settings import Settings
from tests.clock import run_on_mock_clock
from tests.scenarios.carry_out import Order, check
from tests.scenarios.clusters import Fixtures, Replay
from tests.scenarios.table import SCENARIOS

from .kit import record, replay
from .test_replay import all_at_once, codes, one_by_one, own_output


def without_annotation(cassette: Cassette) -> Cassette:
    """The cassette as a release without the annotation would have recorded it."""

    def older(step: Step) -> Step:
        if not isinstance(step.body, dict) or step.body.get("kind") != "Job":
            return step
        annotations = {**step.body["metadata"]["annotations"]}
        del annotations[PROGRAM_ANNOTATION]
        metadata = {**step.body["metadata"], "annotations": annotations}
        if not annotations:
            del metadata["annotations"]
        return replace(step, body={**step.body, "metadata": metadata})

    return replace(cassette, steps=tuple(map(older, cassette.steps)))


class _OlderFixtures(Fixtures):
    def _load(self, scenario: str) -> Cassette:
        return without_annotation(super()._load(scenario))


OLDER = Replay(_OlderFixtures())


@pytest.mark.parametrize(
    ("scenario", "order"),
    [
        # Releases without the annotation could not attach.
        *((name, "at once") for name in SCENARIOS if SCENARIOS[name].settings.get("delivery") != "attach"),
        ("two-executions-one-watch", "backwards"),
        ("two-executions-one-watch", "one by one"),
    ],
)
def test_a_cassette_without_digests_is_replayed_strictly(scenario: str, order: Order) -> None:
    check(SCENARIOS[scenario], OLDER.play(scenario, order).outcomes)


def test_a_cassette_without_digests_is_replayed_in_every_order(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: all_at_once(sandbox, codes(5)))
    cassette = without_annotation(load(tmp_path / "c.yaml"))
    for order in (codes(5), codes(5)[::-1]):
        for run in (all_at_once, one_by_one):
            assert replay(cassette, lambda sandbox, o=order, r=run: r(sandbox, o)) == own_output(order)


def test_a_program_that_was_not_recorded_takes_no_other_programs_job(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, ["print(1)", "print(2)", "print(3)"]))

    async def main(sandbox: AsyncSandbox) -> list[str]:
        results = await sandbox.map(["print('new')", "print(1)", "print(3)"], return_exceptions=True)
        return [str(result) for result in results]

    with pytest.raises(ReplayMismatch) as caught:
        replay(tmp_path / "c.yaml", main)
    assert "step create-configmaps-" in str(caught.value)
    assert """got "print('new')\"""" in str(caught.value)


def test_a_job_of_an_unknown_program_without_a_config_map_is_a_mismatch_at_the_end(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", lambda sandbox: one_by_one(sandbox, ["print(1)"]))

    async def main() -> int:
        job = build(Settings(), Program(code="print(2)"), name="gke-sandbox-x", session="s").job
        async with httpx.AsyncClient(
            transport=ReplayTransport(Player(load(tmp_path / "c.yaml"))), base_url="https://c"
        ) as client:
            path = "/apis/batch/v1/namespaces/default/jobs?fieldValidation=Strict"
            return (await client.post(path, json=job)).status_code

    with pytest.raises(ReplayMismatch, match="its program differs"):
        run_on_mock_clock(main)


@pytest.mark.parametrize("has_digests", [True, False])
def test_a_refused_job_stays_refused_in_every_order(tmp_path: Path, has_digests: bool) -> None:
    """Without a ConfigMap only the annotation shows which program was refused."""
    programs = ["print(1)", "print(2)"]

    async def main(sandbox: AsyncSandbox, order: list[str]) -> dict[str, str]:
        outcomes = {}
        for code in order:
            try:
                outcomes[code] = (await sandbox.run(code)).stdout
            except ApiError as error:
                outcomes[code] = error.reason
        return outcomes

    refused = Fault(Respond(403, "Forbidden", "no"), Match("create", "jobs"))
    recorded = record(tmp_path / "c.yaml", lambda sandbox: main(sandbox, programs), refused)
    assert recorded == {"print(1)": "Forbidden", "print(2)": "ran print(2)"}
    cassette = load(tmp_path / "c.yaml")
    if not has_digests:
        cassette = without_annotation(cassette)
    for order in (programs, programs[::-1]):
        assert replay(cassette, lambda sandbox, o=order: main(sandbox, o)) == recorded


def test_settings_that_are_not_part_of_the_digest_must_match_as_well(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox, *images: str) -> list[str]:
        return [(await sandbox.run("print(1)", image=image)).stdout for image in images]

    outputs = record(tmp_path / "c.yaml", lambda sandbox: main(sandbox, "python:3.11", "python:3.12"))
    assert replay(tmp_path / "c.yaml", lambda sandbox: main(sandbox, "python:3.12", "python:3.11")) == outputs
    with pytest.raises(ReplayMismatch, match=r"image: recorded 'python:3\.1[12]', got 'python:3\.13'"):
        replay(tmp_path / "c.yaml", lambda sandbox: main(sandbox, "python:3.13", "python:3.11"))

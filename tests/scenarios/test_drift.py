"""Two recordings of one scenario are compared in shape, not in values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox import AsyncSandbox
from gke_sandbox.cassette import Cassette, load
from gke_sandbox.cassette.model import Chunk, RecordedResponse, Step
from gke_sandbox.local.faults import Drop, Fault, Match
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from tests.cassette.kit import record
from tests.pods import START, exit_frame, out, program

from .drift import drift


async def one(sandbox: AsyncSandbox) -> None:
    await sandbox.run("print(1)")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Cassette:
    path = tmp_path_factory.mktemp("drift") / "c.yaml"
    record(path, one, script=program(out("1\n")))
    return load(path)


def changed(cassette: Cassette, name: str, change: Callable[[RecordedResponse], RecordedResponse]) -> Cassette:
    assert any(step.name == name for step in cassette.steps)
    steps = (
        replace(step, response=change(step.response)) if step.name == name else step for step in cassette.steps
    )
    return replace(cassette, steps=tuple(steps))


def with_json(cassette: Cassette, name: str, change: Callable[[Any], Any]) -> Cassette:
    return changed(cassette, name, lambda response: replace(response, json=change(response.json)))


def differences(before: Cassette, after: Cassette) -> list[str]:
    return [str(each) for each in drift(before, after)]


def test_a_recording_does_not_differ_from_itself(recorded: Cassette) -> None:
    assert drift(recorded, recorded) == []


def test_names_times_texts_and_output_can_differ(recorded: Cassette, tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", one, script=program(out("1"), out("\n"), at=0.7), namespace="elsewhere")
    other = load(tmp_path / "c.yaml")
    assert other.header.namespace == "elsewhere"
    assert drift(recorded, other) == []
    other = with_json(other, "delete-jobs-1", lambda body: {**body, "message": "gone"})
    assert (
        differences(other, with_json(other, "delete-jobs-1", lambda body: {**body, "message": "it is gone"})) == []
    )


def test_another_status_is_reported_without_the_differences_of_the_body(recorded: Cassette) -> None:
    other = changed(
        recorded, "delete-jobs-1", lambda response: replace(response, status=202, json={"kind": "Job"})
    )
    assert differences(recorded, other) == ["delete-jobs-1: status: recorded 200, found 202"]


def test_added_and_removed_fields_and_other_types_are_reported(recorded: Cassette) -> None:
    def change(job: Any) -> Any:
        spec = {**job["spec"], "backoffLimit": "0", "newer": {"much": {"in": "it"}}}
        del spec["suspend"]
        return {**job, "spec": spec}

    assert differences(recorded, with_json(recorded, "create-jobs-1", change)) == [
        "create-jobs-1: spec.backoffLimit: recorded a number, found text",
        "create-jobs-1: spec.suspend: recorded a boolean, found nothing",
        "create-jobs-1: spec.newer: recorded nothing, found an object",
    ]


def test_items_of_a_list_are_identified_by_name_and_not_by_order(recorded: Cassette) -> None:
    def listed(*items: Any) -> Cassette:
        return with_json(recorded, "list-pods", lambda body: {**body, "conditions": list(items)})

    ready, done = {"type": "Ready", "status": "True"}, {"type": "Done", "status": "True"}
    assert differences(listed(ready, done), listed(done, ready)) == []
    assert differences(listed(ready, done), listed(done, {**ready, "status": "False"})) == [
        "list-pods: conditions[Ready].status: recorded 'True', found 'False'"
    ]


def test_reasons_are_compared_and_messages_are_not(recorded: Cassette) -> None:
    def refused(reason: str, message: str) -> Cassette:
        status = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": 403}
        return changed(recorded, "delete-jobs-1", lambda response: replace(response, status=403, json=status))

    assert differences(refused("Forbidden", "no"), refused("Forbidden", "never")) == []
    assert differences(refused("Forbidden", "no"), refused("Invalid", "no")) == [
        "delete-jobs-1: reason: recorded 'Forbidden', found 'Invalid'"
    ]


def test_a_new_header_is_reported(recorded: Cassette) -> None:
    other = changed(
        recorded, "create-jobs-1", lambda response: replace(response, headers={"warning": '299 - "x"'})
    )
    assert differences(recorded, other) == ["create-jobs-1: headers: recorded [], found ['warning']"]


def test_requests_in_only_one_recording_are_reported(recorded: Cassette, tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", one, Fault(Drop(), Match("create", "configmaps")), script=program(out("1\n")))
    assert differences(recorded, load(tmp_path / "c.yaml")) == [
        "create-configmaps-1: the response: recorded 201, found ReadError",
        "create-configmaps-1-again-2: the request: recorded none, found one",
    ]
    assert "create-configmaps-1-again-2: the request: recorded one, found none" in differences(
        load(tmp_path / "c.yaml"), recorded
    )


def test_the_order_of_the_phases_of_a_pod_is_reported(recorded: Cassette, tmp_path: Path) -> None:
    killed = Script([(0.0, START), (0.1, out("1\n"))], 0.5, ContainerExit(128, "OOMKilled"))
    record(tmp_path / "c.yaml", one, script=killed)
    memory = load(tmp_path / "c.yaml")
    record(tmp_path / "d.yaml", one, script=replace(killed, exit=ContainerExit(3, "Error")))
    (difference,) = (each for each in drift(memory, load(tmp_path / "d.yaml")) if each.step == "watch-pods")
    assert difference.path == "phases of pod 1 of <job-1>"
    assert difference.recorded.endswith("Running running > Running terminated OOMKilled 128")
    assert difference.found.endswith("Running running > Running terminated Error 3")


def test_events_after_the_client_closed_a_watch_are_not_compared(recorded: Cassette) -> None:
    """The state of a pod when the client closes the watch depends on timing."""

    def shorter(response: RecordedResponse) -> RecordedResponse:
        assert response.chunks is not None
        return replace(response, chunks=response.chunks[:4])

    other = changed(recorded, "watch-pods", shorter)
    assert drift(recorded, other) == []
    assert drift(other, recorded) == []
    ended = changed(other, "watch-pods", lambda response: replace(response, ended_by="server"))
    whole = changed(recorded, "watch-pods", lambda response: replace(response, ended_by="server"))
    assert [each.path for each in drift(whole, ended)] == ["phases of pod 1 of <job-1>"]


def test_a_field_of_an_event_is_reported_with_its_phase(recorded: Cassette) -> None:
    def change(response: RecordedResponse) -> RecordedResponse:
        assert response.chunks is not None
        return replace(response, chunks=tuple(map(without_node, response.chunks)))

    def without_node(chunk: Chunk) -> Chunk:
        assert chunk.event is not None
        pod = chunk.event["object"]
        spec = {name: value for name, value in pod["spec"].items() if name != "nodeName"}
        return replace(chunk, event={**chunk.event, "object": {**pod, "spec": spec}})

    found = differences(recorded, changed(recorded, "watch-pods", change))
    assert found[0] == "watch-pods: Pending: spec.nodeName: recorded text, found nothing"
    assert found[1] == "watch-pods: Pending waiting ContainerCreating: spec.nodeName: recorded text, found nothing"


def test_the_kinds_of_frames_of_a_log_are_compared_and_not_their_number(recorded: Cassette) -> None:
    def logged(*frames: bytes) -> Cassette:
        chunks = tuple(Chunk(0, frame) for frame in frames)
        return changed(
            recorded, "get-pods-log-1", lambda response: replace(response, chunks=chunks, ended_by="server")
        )

    whole = logged(START, out("1"), exit_frame())
    assert differences(whole, logged(START, out("1"), out("2"), out("3"), exit_frame())) == []
    assert differences(whole, logged(START, out("1"))) == [
        "get-pods-log-1: frames: recorded start, output, exit, found start, output"
    ]
    assert differences(whole, logged(b"no such file or directory: python3\n")) == [
        "get-pods-log-1: frames: recorded start, output, exit, found no frame"
    ]


def test_jobs_are_compared_with_those_that_run_the_same_program(tmp_path: Path) -> None:
    """Who sent the first request of several that run at once is a matter of moments, too."""

    def script(spec: Any) -> Script:
        failed = "bad" in spec.env["GKE_SANDBOX_CODE_0"]
        return program(out("x"), code=3 if failed else 0)

    async def both(sandbox: AsyncSandbox, codes: list[str]) -> None:
        for code in codes:
            await sandbox.run(code, labels={"kind": code} if code == "bad" else {})

    record(tmp_path / "a.yaml", lambda sandbox: both(sandbox, ["bad", "good"]), script=script)
    record(tmp_path / "b.yaml", lambda sandbox: both(sandbox, ["good", "bad"]), script=script)
    first, second = load(tmp_path / "a.yaml"), load(tmp_path / "b.yaml")
    assert steps_of(first)["create-jobs-1"].body != steps_of(second)["create-jobs-1"].body
    assert drift(first, second) == []


def steps_of(cassette: Cassette) -> dict[str, Step]:
    return {step.name: step for step in cassette.steps}

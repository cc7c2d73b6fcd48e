"""Recordings of attached runs, and their replay."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox import AsyncSandbox, ExecutionResult, SandboxError
from gke_sandbox._wire.manifests import build
from gke_sandbox._wire.payload import runner_text
from gke_sandbox._wire.program import Program
from gke_sandbox.cassette import Player, RecordingTransport, ReplayTransport, load
from gke_sandbox.cassette.canonical import canonical_form, digest_of
from gke_sandbox.cassette.format import read, write
from gke_sandbox.cassette.model import Step
from gke_sandbox.cassette.stdin_request import readable_stdin, request_length
from gke_sandbox.errors import CassetteError, Forbidden, ReplayMismatch
from gke_sandbox.local import ScriptedProcess
from gke_sandbox.local.faults import (
    CloseAttach,
    CutAttach,
    Fault,
    Forbid,
    GarbleAttach,
    Match,
    Respond,
    StallAttach,
)
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from gke_sandbox.settings import Settings
from tests.clock import run_on_mock_clock
from tests.local.attaching import UPGRADE
from tests.pods import START, exit_frame, out

from .attaching import record, replay
from .conftest import RecordedOnce

FILES = {"a.bin": b"\xff", "b.txt": "text"}


async def one(sandbox: AsyncSandbox, code: str = "print(1)") -> ExecutionResult:
    return await sandbox.run(code, files=FILES, args=["x"], stdin="in", env={"A": "1"})


@pytest.fixture
def path(recorded_once: RecordedOnce) -> Path:
    """The recording of `one`."""
    return recorded_once(record, one)[0]


def steps(path: Path) -> dict[str, Step]:
    return {step.name: step for step in load(path).steps}


def received(step: Step, channel: str = "stdout") -> bytes:
    return b"".join(chunk.data for chunk in step.response.chunks or () if chunk.channel == channel)


async def outcome(sandbox: AsyncSandbox, code: str = "print(1)") -> tuple[Any, ...]:
    try:
        result = await sandbox.run(code)
    except SandboxError as error:
        return type(error), error.may_have_run
    return result.status, result.stdout, result.exit_code, result.output_truncated, result.warnings


# -- the recording --------------------------------------------------------------------------------------------


def test_an_attach_is_recorded_with_its_protocol_and_the_messages_of_each_channel(tmp_path: Path) -> None:
    result = record(tmp_path / "c.yaml", one)
    attach = steps(tmp_path / "c.yaml")["get-pods-attach-1"]
    assert attach.response.status == 101
    assert attach.response.headers == {"sec-websocket-protocol": "v5.channel.k8s.io"}
    assert result.stdout == "print(1)"
    assert received(attach) == START + out("print(1)") + exit_frame(0)
    assert attach.response.ended_by == "client"
    text = (tmp_path / "c.yaml").read_text()
    for word in ("sec-websocket-accept", "Sec-WebSocket-Key", "import select", result.job):
        assert word not in text


def test_the_request_on_stdin_is_one_step_that_people_can_read(path: Path) -> None:
    sent = steps(path)["send-pods-attach-1"]
    assert (sent.method, sent.job) == ("SEND", "<job-1>")
    assert sent.body["code"] == "print(1)"
    assert sent.body["stdin"] == "in"
    assert sent.body["files"] == {"a.bin": {"base64": "/w=="}, "b.txt": "text"}
    assert (sent.body["args"], sent.body["protocol"]) == (["x"], 1)


def test_the_runner_in_the_job_is_a_placeholder_everywhere(path: Path) -> None:
    found = steps(path)
    for job in (found["create-jobs-1"].body, found["create-jobs-1"].response.json):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert {"name": "GKE_SANDBOX_RUNNER", "value": "<runner>"} in container["env"]
    # In an environment variable `$` is doubled, and in a ConfigMap it is not: the placeholder stands for both.
    assert "$" not in runner_text()


def test_another_runner_and_another_time_to_wait_do_not_change_what_the_caller_chose() -> None:
    made = build(Settings(delivery="attach", env={"A": "1"}), Program(code="1"), name="job", session="s")
    text = json.dumps(made.job)
    assert json.dumps("60") in text
    changed = json.loads(text.replace(json.dumps("60"), json.dumps("90")))
    (container,) = changed["spec"]["template"]["spec"]["containers"]
    container["env"][0]["value"] = "another runner"
    assert canonical_form(changed) == canonical_form(made.job)
    assert canonical_form(changed)["env"] == {"A": "1"}


def test_messages_that_the_server_cut_are_joined_unless_time_passed_between_them(tmp_path: Path) -> None:
    async def program(process: ScriptedProcess) -> None:
        await process.readline()
        await process.write_error(b"warn")
        await anyio.sleep(0.1)
        for part in (b"\x1est", b"art 35\n", START.partition(b"\n")[2]):
            await process.write(part)
            await anyio.sleep(0.001)
        await anyio.sleep(0.5)
        await process.write(out("late") + exit_frame(0))
        await process.read(1)
        # The client closes the connection before the server sends the status of the process.
        await anyio.sleep(1)

    record(tmp_path / "c.yaml", one, script=Script(program=program))
    chunks = steps(tmp_path / "c.yaml")["get-pods-attach-1"].response.chunks or ()
    assert [(chunk.channel, chunk.data[:6]) for chunk in chunks] == [
        ("stdout", b""),
        ("stderr", b"warn"),
        ("stdout", START[:6]),
        ("stdout", out("late")[:6]),
    ]
    assert chunks[3].at - chunks[2].at == pytest.approx(500, abs=20)


def test_what_was_received_after_the_request_follows_it(path: Path) -> None:
    chunks = steps(path)["get-pods-attach-1"].response.chunks or ()
    assert all(chunk.after == ("send-pods-attach-1",) for chunk in chunks if chunk.data)


@pytest.mark.parametrize("where", ["code", "files", "stdin", "stdout", "stderr"])
def test_a_secret_on_any_channel_is_refused(tmp_path: Path, where: str) -> None:
    secret = "ghp_" + "a" * 36
    printed = secret if where == "stdout" else ""

    async def program(process: ScriptedProcess) -> None:
        await process.readline()
        await process.write_error(secret.encode() if where == "stderr" else b"")
        await process.write(START + out(printed[:9]) + out(printed[9:]) + exit_frame(0))
        await process.read(1)

    async def main(sandbox: AsyncSandbox) -> None:
        await sandbox.run(
            f"# {secret}" if where == "code" else "1",
            files={"a": secret.encode() + b"\xff"} if where == "files" else {},
            stdin=secret if where == "stdin" else None,
        )

    with pytest.raises(CassetteError, match="contains a GitHub token"):
        record(tmp_path / "c.yaml", main, script=Script(program=program))
    assert not (tmp_path / "c.yaml").exists()


# -- replay ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_a_replayed_attach_has_the_recorded_result(recorded_once: RecordedOnce, strict: bool) -> None:
    path, first = recorded_once(record, one)
    second = replay(path, one, strict=strict)
    assert (second.status, second.stdout, second.exit_code) == (first.status, first.stdout, first.exit_code)
    assert second.job != first.job
    assert second.pod.startswith(second.job)


def test_a_replay_takes_no_time_and_with_timing_the_recorded_time(tmp_path: Path) -> None:
    async def program(process: ScriptedProcess) -> None:
        await process.readline()
        await process.write(START)
        await anyio.sleep(0.7)
        await process.write(exit_frame(0))
        await process.read(1)

    first = record(tmp_path / "c.yaml", one, script=Script(program=program))
    fast = replay(tmp_path / "c.yaml", one)
    slow = replay(tmp_path / "c.yaml", one, timing=True)
    assert fast.timings.finished == 0
    assert slow.timings.finished == pytest.approx(first.timings.finished, abs=0.01)


def test_a_request_of_many_messages_is_one_step_and_is_replayed(tmp_path: Path) -> None:
    code = "#" + "x" * 300_000

    async def main(sandbox: AsyncSandbox) -> str:
        return (await sandbox.run(code)).stdout

    assert record(tmp_path / "c.yaml", main) == code
    assert sum(step.method == "SEND" for step in load(tmp_path / "c.yaml").steps) == 1
    assert replay(tmp_path / "c.yaml", main) == code


def test_executions_get_their_own_results_in_every_order(tmp_path: Path) -> None:
    codes = [f"print({number})" for number in range(5)]

    async def main(sandbox: AsyncSandbox, order: Sequence[str] = codes) -> dict[str, str]:
        results = await sandbox.map(order, max_concurrency=len(order))
        return {code: result.stdout for code, result in zip(order, results, strict=True)}

    found = record(tmp_path / "c.yaml", main)
    assert found == {code: code for code in codes}
    for order in (codes, codes[::-1], codes[2:] + codes[:2]):
        assert replay(tmp_path / "c.yaml", lambda sandbox, o=order: main(sandbox, o), strict=True) == found


def test_another_program_is_a_mismatch_that_shows_the_nearest_one_and_the_difference(path: Path) -> None:
    with pytest.raises(ReplayMismatch) as caught:
        replay(path, lambda sandbox: one(sandbox, "print(2)"))
    text = str(caught.value)
    assert "unexpected request" in text
    assert "step send-pods-attach-1: SEND" in text
    assert "code: recorded 'print(1)', got 'print(2)'" in text


def test_a_program_that_was_not_sent_is_a_mismatch_at_the_end(tmp_path: Path) -> None:
    async def two(sandbox: AsyncSandbox) -> None:
        await sandbox.map(["1", "2"])

    async def first(sandbox: AsyncSandbox) -> None:
        await sandbox.run("1")

    record(tmp_path / "c.yaml", two)
    with pytest.raises(ReplayMismatch, match=r"recorded requests were not\s+sent"):
        replay(tmp_path / "c.yaml", first)


def test_a_cassette_can_be_edited_by_hand(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", one)
    text = (tmp_path / "c.yaml").read_text()
    assert text.count("code: print(1)") == 1
    edited = text.replace("code: print(1)", "code: print(22)").replace("out 8\\nprint(1)\\n", "out 2\\n22\\n")
    (tmp_path / "c.yaml").write_text(edited.replace(digest("print(1)"), digest("print(22)")))
    assert replay(tmp_path / "c.yaml", lambda sandbox: one(sandbox, "print(22)")).stdout == "22"


def digest(code: str) -> str:
    return Program(code=code, files=FILES, args=["x"], stdin="in").digest(Settings())


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", one, Fault(CloseAttach(after=100, code=1001, reason="going away")))
    text = (tmp_path / "c.yaml").read_text()
    assert write(read(text)) == text
    assert "close: 1001" in text


# -- refusals and cuts ----------------------------------------------------------------------------------------

FAULTS = {
    "cut before the first message": CutAttach(after=0),
    "cut within the start frame": CutAttach(after=10),
    "cut after the start frame": CutAttach(after=len(START)),
    "cut within a WebSocket frame": CutAttach(after=len(START) + 3, inside_frame=True),
    "ended without a close frame": CutAttach(after=len(START), clean=True),
    "cut within the request": CutAttach(after=40, direction="input"),
    "cut after the request": CutAttach(after=400, direction="input"),
    "closed with a code": CloseAttach(after=len(START)),
    "closed normally in the middle": CloseAttach(after=len(START) + 5, code=1000),
    "garbage": GarbleAttach(after=len(START)),
    "silence": StallAttach(after=len(START)),
    "silence before the start": StallAttach(after=0),
    "not running": Respond(500, "", "", text="container code-runner not found in pod x_default"),
    "refused": Forbid(),
    "unauthorized": Respond.unauthorized(),
    "a proxy without WebSockets": Respond(200, "", "", text="<html>"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong_with_an_attach_is_replayed(tmp_path: Path, name: str) -> None:
    fault = Fault(FAULTS[name], Match("get", "pods/attach"))
    first = record(tmp_path / "c.yaml", outcome, fault)
    assert replay(tmp_path / "c.yaml", outcome) == first
    assert replay(tmp_path / "c.yaml", outcome, strict=True, timing=True) == first


@pytest.mark.parametrize("name", ["cut before the first message", "cut within the request", "refused"])
def test_what_goes_wrong_with_every_attach_is_replayed(tmp_path: Path, name: str) -> None:
    fault = Fault(FAULTS[name], Match("get", "pods/attach"), times=None)
    first = record(tmp_path / "c.yaml", outcome, fault)
    assert replay(tmp_path / "c.yaml", outcome) == first
    assert replay(tmp_path / "c.yaml", outcome, strict=True, timing=True) == first


def test_a_refusal_keeps_its_message(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> str:
        with pytest.raises(Forbidden) as caught:
            await sandbox.run("1")
        return re.sub("gke-sandbox-[0-9a-f]+", "<job>", str(caught.value))

    fault = Fault(Forbid(), Match("get", "pods/attach"), times=None)
    assert record(tmp_path / "c.yaml", main, fault) == replay(tmp_path / "c.yaml", main, timing=True)


def test_a_container_that_is_killed_is_replayed_from_its_attach_and_its_log(tmp_path: Path) -> None:
    async def program(process: ScriptedProcess) -> ContainerExit:
        await process.readline()
        await process.write(START + out("before"))
        await anyio.sleep(0.2)
        return ContainerExit(137, "OOMKilled")

    first = record(tmp_path / "c.yaml", outcome, script=Script(program=program))
    assert first[0] == "out_of_memory"
    attach = steps(tmp_path / "c.yaml")["get-pods-attach-1"]
    assert (attach.response.chunks or ())[-1].close == 1000
    assert json.loads(received(attach, "status")) == {"metadata": {}, "status": "Success"}
    assert attach.response.ended_by == "server"
    assert replay(tmp_path / "c.yaml", outcome, strict=True) == first


# -- the connection, for any client ---------------------------------------------------------------------------


def cassette_with(*messages: dict[str, Any], ends: str = "server") -> str:
    document = {
        "gke_sandbox_cassette": 1,
        "scenario": "s",
        "steps": [
            {
                "step": "attach",
                "at": 0,
                "request": "GET /api/v1/namespaces/n/pods/p/attach?stdin=true",
                "status": 101,
                "headers": {"sec-websocket-protocol": "v5.channel.k8s.io"},
                "stream": [{"at": 0, **message} for message in messages],
                "ended": 5,
                "ends": ends,
            },
            {"step": "typed", "at": 1, "request": "SEND /api/v1/namespaces/n/pods/p/attach", "body": "hello"},
            {"step": "end", "at": 2, "request": "SEND /api/v1/namespaces/n/pods/p/attach?close=stdin"},
        ],
    }
    return json.dumps(document) + "\n...\n"


def test_another_client_can_replay_an_attach_with_text_and_a_closed_stdin() -> None:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

    text = cassette_with(
        {"channel": "stdout", "text": "hi"},
        {"channel": "7", "base64": "/w=="},
        {"channel": "text", "text": "words", "after": ["typed"]},
        {"close": 1000, "text": "bye", "after": ["end"]},
    )

    async def main() -> list[Any]:
        async with httpx.AsyncClient(
            transport=ReplayTransport(Player(read(text))), base_url="https://replay.invalid"
        ) as client:
            request = client.build_request(
                "GET", "/api/v1/namespaces/n/pods/p/attach", params={"stdin": "true"}, headers=UPGRADE
            )
            response = await client.send(request, stream=True)
            # The example of RFC 6455, section 1.3.
            assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert response.headers["sec-websocket-protocol"] == "v5.channel.k8s.io"
            stream = response.extensions["network_stream"]
            websocket = Connection(ConnectionType.CLIENT)
            events: list[Any] = []

            async def until(count: int) -> None:
                while len(events) < count:
                    websocket.receive_data(await stream.read(1 << 16))
                    events.extend(websocket.events())

            await until(2)
            await stream.write(websocket.send(Ping(b"?")))
            await stream.write(websocket.send(BytesMessage(b"\0hello")))
            await until(4)
            await stream.write(websocket.send(BytesMessage(b"\xff\0")))
            await until(5)
            assert await stream.read(1) == b""
            await response.aclose()
            with pytest.raises(Exception, match="closed"):
                await stream.read(1)
            return events

    first, second, *others, close = run_on_mock_clock(main)
    assert [bytes(first.data), bytes(second.data)] == [b"\x01hi", b"\x07\xff"]
    kinds = {type(event) for event in others}
    assert kinds == {Pong, TextMessage}
    assert isinstance(close, CloseConnection)
    assert (close.code, close.reason) == (1000, "bye")


def test_a_recorded_replay_is_the_same_recording(tmp_path: Path) -> None:
    """The recorder and the player agree about every message."""
    record(tmp_path / "c.yaml", one, Fault(CloseAttach(after=len(START), code=1011, reason="why")))

    async def main() -> None:
        from gke_sandbox import Cluster
        from gke_sandbox.cassette import Recorder

        replaying = ReplayTransport(Player(load(tmp_path / "c.yaml"), timing=True))
        recording = RecordingTransport(replaying, Recorder(tmp_path / "again.yaml"))
        async with AsyncSandbox(Cluster.transport(recording), delivery="attach") as sandbox:
            await one(sandbox)

    run_on_mock_clock(main)
    before, after = steps(tmp_path / "c.yaml"), steps(tmp_path / "again.yaml")
    assert sorted(before) == sorted(after)
    assert before["send-pods-attach-1"].body == after["send-pods-attach-1"].body
    first, second = (
        [(chunk.channel, chunk.data, chunk.close, chunk.after) for chunk in found.response.chunks or ()]
        for found in (before["get-pods-attach-1"], after["get-pods-attach-1"])
    )
    assert first == second


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"channel": "stdin", "text": ""}, "channel: must be stdout, stderr, status, text or '0' to '255'"),
        ({"channel": "256", "text": ""}, "channel: must be"),
        ({"channel": "stdout"}, "needs one of text, base64 and close"),
        ({"channel": "stdout", "text": "a", "base64": ""}, "needs one of"),
        ({"close": 5}, "close: must be a code from 1000 to 4999"),
        ({"close": 1000, "channel": "stdout"}, "without a channel"),
        ({"event": "ADDED"}, "unknown key 'event'"),
    ],
)
def test_a_wrong_message_is_an_error_with_its_place(message: dict[str, Any], why: str) -> None:
    with pytest.raises(CassetteError, match=f"step attach, stream.*{why}|step attach: .*{why}"):
        read(cassette_with(message))


def test_what_is_written_to_stdin_has_no_response() -> None:
    text = cassette_with().replace('"body": "hello"', '"status": 200')
    with pytest.raises(CassetteError, match="step typed, which has no response: unknown key 'status'"):
        read(text)


# -- requests on stdin ----------------------------------------------------------------------------------------


def test_the_digest_of_a_request_on_stdin_is_that_of_the_program() -> None:
    program = Program(code="print(1)", files=FILES, args=["é"], stdin=b"\x00\xff")
    settings = Settings(delivery="attach", timeout=3, max_files=2)
    request = build(settings, program, name="job", session="s").request
    assert request_length(request) == len(request)
    assert digest_of(readable_stdin(request)) == program.digest(settings)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"hello\n", "hello\n"),
        (b"\xff", {"base64": "/w=="}),
        (b"12", "<any>"),
        (b"12 3", "<any>"),
        (b"12 3\n{", "<any>"),
        (b"2 0\n[]", "2 0\n[]"),
        (b"2 1\n{}x", "2 1\n{}x"),
        (b"y", "y"),
    ],
)
def test_other_data_on_stdin_is_text_and_an_incomplete_request_matches_anything(data: bytes, body: Any) -> None:
    assert readable_stdin(data) == body


def test_a_content_with_another_encoding_is_text() -> None:
    request = json.dumps({"protocol": 1, "code": ["zlib", [1]], "stdin": None, "files": {}}).encode()
    data = b"%d 1\n%sx" % (len(request), request)
    assert readable_stdin(data) == data.decode()


def test_digests_of_other_data_are_unknown() -> None:
    for body in ("text", {"protocol": 1}, None):
        assert digest_of(body) is None
    assert canonical_form({"protocol": 1}) == {"protocol": 1}

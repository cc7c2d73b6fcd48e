"""Recording: everything passes through unchanged, and is recorded."""

from __future__ import annotations

import json
from collections.abc import Generator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from gke_sandbox import AsyncSandbox, Cluster, StartError
from gke_sandbox.cassette import Cassette, Recorder, RecordingTransport, load
from gke_sandbox.cassette.model import Exchange, Header, Step
from gke_sandbox.cassette.normalize import normalize
from gke_sandbox.errors import CassetteError, Forbidden
from gke_sandbox.local.faults import Fault, Match, Respond
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from tests.clock import run_on_mock_clock
from tests.pods import START, exit_frame, out, program

from .kit import BEGAN, record, replay
from .test_replay import one

SECRETS = [
    ("ya29.a0AfH6SMBx-abcdefghijkl", "a Google access token"),
    ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl", "a signed token (JWT)"),
    ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
    ("-----BEGIN CERTIFICATE-----", "a certificate"),
    ("AKIA" + "A" * 16, "an AWS access key"),
    ("ghp_" + "a" * 36, "a GitHub token"),
    ("https://me:hunter2@example.org/", "a password in an address"),
    ("Authorization: Bearer abcdefghijklmnopqrst", "a bearer token"),
]


def steps(path: Path) -> dict[str, Step]:
    return {step.name: step for step in load(path).steps}


def test_the_header_contains_scenario_date_and_versions(tmp_path: Path) -> None:
    record(tmp_path / "hello.world.yaml", one, notes="tried out")
    header = load(tmp_path / "hello.world.yaml").header
    assert (header.scenario, header.namespace, header.recorded_at) == ("hello", "default", "2026-11-23")
    assert header.recorded_with.startswith("gke-sandbox ")
    assert header.server == "v1.36.2+embedded"
    assert header.notes == "tried out"


def test_names_times_and_the_runner_are_placeholders(tmp_path: Path) -> None:
    result = record(tmp_path / "c.yaml", one)
    text = (tmp_path / "c.yaml").read_text()
    assert result.job not in text
    assert "import select" not in text, "the text of the runner is not recorded"
    assert "2026-11-23T" not in text
    found = steps(tmp_path / "c.yaml")
    job = found["create-jobs-1"].response.json
    assert job["metadata"]["name"] == "<job-1>"
    assert job["metadata"]["uid"] == "<uid-1>"
    assert job["metadata"]["creationTimestamp"] == "<time+0s>"
    assert found["create-configmaps-1"].body["data"]["runner"] == "<runner>"
    assert found["watch-pods"].query["timeoutSeconds"] == "<any>"
    assert job["metadata"]["resourceVersion"].startswith("<version-")
    assert (
        found["watch-pods"].query["resourceVersion"]
        == found["list-pods"].response.json["metadata"]["resourceVersion"]
    )


def test_nodes_addresses_and_bookkeeping_are_omitted(tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", one)
    text = (tmp_path / "c.yaml").read_text()
    for word in (
        "managedFields",
        "hostIP",
        "podIP",
        "containerID",
        "imageID",
        "192.168.",
        "User-Agent",
        "user-agent",
    ):
        assert word not in text
    assert "nodeName: <node-1>" in text


def test_a_stream_is_not_delayed_while_it_is_recorded(tmp_path: Path) -> None:
    script = Script([(0.0, START), *((at, out(f"{at}\n")) for at in (1.0, 2.0, 3.0)), (4.0, exit_frame())], 4.0)

    async def main(sandbox: AsyncSandbox) -> list[float]:
        times = []
        async with sandbox.stream("x") as events:
            async for event in events:
                if type(event).__name__ == "OutputChunk":
                    times.append(anyio.current_time())
        return [later - times[0] for later in times]

    assert record(tmp_path / "c.yaml", main, script=script) == pytest.approx([0, 1, 2], abs=0.1)
    chunks = steps(tmp_path / "c.yaml")["get-pods-log-1"].response.chunks
    assert chunks is not None
    starts = {chunk.data: chunk.at for chunk in chunks if chunk.data.endswith(b".0\n")}
    assert list(starts) == [b"1.0\n", b"2.0\n", b"3.0\n"]
    first, second, third = starts.values()
    assert [second - first, third - first] == pytest.approx([1000, 2000], abs=100)


def test_bytes_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    result = record(tmp_path / "c.yaml", one, script=program(out("é"), out("x").replace(b"x", b"\xff")))
    assert result.stdout_bytes == "é".encode() + b"\xff"
    chunks = steps(tmp_path / "c.yaml")["get-pods-log-1"].response.chunks
    assert chunks is not None
    assert b"\xff" in b"".join(chunk.data for chunk in chunks)


def test_a_failed_start_is_recorded(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> None:
        with pytest.raises(StartError):
            await one(sandbox)

    record(tmp_path / "c.yaml", main, script=Script(exit=ContainerExit(1, "Error"), ends_at=0.1))
    assert "create-jobs-1" in steps(tmp_path / "c.yaml")


def test_a_retry_after_is_kept(tmp_path: Path) -> None:
    busy = Fault(Respond(503, "ServiceUnavailable", "busy", retry_after=2), Match("list", "pods"))
    record(tmp_path / "c.yaml", one, busy)
    found = steps(tmp_path / "c.yaml")
    assert found["list-pods"].response.headers == {"retry-after": "2"}


class _Refusing(httpx.AsyncBaseTransport):
    """A server that refuses the old credentials."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        refused = request.headers["Authorization"] == "old"
        return httpx.Response(401 if refused else 200, json={}, request=request)


class _Renewing(httpx.Auth):
    """Credentials that are renewed after a 401, like those of the client."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = "old"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = "new"
            yield request


def test_a_401_is_recorded_unless_the_request_was_sent_again_with_new_credentials(tmp_path: Path) -> None:
    async def main() -> list[int | None]:
        tape = Recorder(tmp_path / "c.yaml")
        async with httpx.AsyncClient(transport=RecordingTransport(_Refusing(), tape)) as client:
            await client.get("https://c/a", auth=_Renewing())
            # Two separate requests: the first is refused, the second is not.
            await client.get("https://c/a", headers={"Authorization": "old"})
            await client.get("https://c/a", headers={"Authorization": "new"})
        return [step.response.status for step in tape.cassette().steps]

    assert run_on_mock_clock(main) == [200, 401, 200]


@pytest.mark.parametrize(("secret", "kind"), SECRETS, ids=[kind for _, kind in SECRETS])
@pytest.mark.parametrize("place", ["code", "file", "printed", "env"])
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, secret: str, kind: str, place: str) -> None:
    async def main(sandbox: AsyncSandbox) -> None:
        code = f"print({secret!r})" if place == "code" else "x"
        files = {"key.txt": secret.encode() + b"\n"} if place == "file" else {}
        await sandbox.run(code, files=files, env={"KEY": secret} if place == "env" else {})

    # Output arrives in pieces.
    printed = [out(secret[:9]), out(secret[9:])] if place == "printed" else [out("fine")]
    (tmp_path / "c.yaml").write_text("what was there before")
    with pytest.raises(CassetteError) as caught:
        record(tmp_path / "c.yaml", main, script=program(*printed))
    assert kind in str(caught.value)
    assert secret not in str(caught.value)
    assert "step " in str(caught.value)
    assert (tmp_path / "c.yaml").read_text() == "what was there before"


def test_a_recording_that_cannot_be_written_is_an_error_when_the_sandbox_closes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CassetteError, match="cannot be written"):
        record(tmp_path / "file" / "c.yaml", one)


def test_responses_are_requested_without_compression(tmp_path: Path) -> None:
    asked: list[str] = []

    async def main() -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request.headers["accept-encoding"])
            return httpx.Response(200, json={})

        transport = RecordingTransport(
            httpx.MockTransport(answer), Recorder(tmp_path / "c.yaml", now=lambda: BEGAN)
        )
        async with httpx.AsyncClient(transport=transport, headers={"Accept-Encoding": "gzip"}) as client:
            await client.get("https://here.invalid/healthz")

    run_on_mock_clock(main)
    assert set(asked) == {"identity"}


def test_headers_of_requests_are_not_recorded(tmp_path: Path) -> None:
    async def main() -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json={"gitVersion": "v1"}, headers={"Set-Cookie": "secret", "X-Own": "1"})

        transport = RecordingTransport(
            httpx.MockTransport(answer), Recorder(tmp_path / "c.yaml", now=lambda: BEGAN)
        )
        async with httpx.AsyncClient(transport=transport, headers={"Authorization": "Bearer hush"}) as client:
            assert (await client.get("https://here.invalid/healthz?a=1")).json() == {"gitVersion": "v1"}

    run_on_mock_clock(main)
    text = (tmp_path / "c.yaml").read_text()
    for word in ("hush", "secret", "Own", "here.invalid"):
        assert word not in text


def test_all_warnings_of_a_response_are_recorded(tmp_path: Path) -> None:
    warnings = [("Warning", '299 - "one"'), ("Warning", '299 - "two"')]

    async def main() -> None:
        server = httpx.MockTransport(lambda _: httpx.Response(200, json={}, headers=warnings))
        transport = RecordingTransport(server, Recorder(tmp_path / "c.yaml"))
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("https://here.invalid/healthz")

    run_on_mock_clock(main)
    (step,) = load(tmp_path / "c.yaml").steps
    assert step.response.headers == {"warning": '299 - "one", 299 - "two"'}


# -- from exchanges to steps ----------------------------------------------------------------------------------


def cassette_of(exchanges: list[Exchange]) -> Cassette:
    return normalize(exchanges, Header(), datetime(2026, 11, 23, tzinfo=timezone.utc))


def watch_of(*chunks: tuple[float, bytes]) -> Any:
    exchange = Exchange(0, "GET", "/api/v1/pods", {"watch": "true"}, status=200, chunks=list(chunks))
    return cassette_of([exchange]).steps[0].response.chunks


def event(number: int, **more: Any) -> bytes:
    return json.dumps({"type": "ADDED", "object": {"n": number, **more}}, separators=(",", ":")).encode() + b"\n"


def test_a_line_in_pieces_is_one_event_with_its_cuts() -> None:
    line = event(1)
    (chunk,) = watch_of((0.1, line[:7]), (0.2, line[7:12]), (0.3, line[12:]))
    assert chunk.event == {"type": "ADDED", "object": {"n": 1}}
    assert (chunk.at, chunk.split_at, chunk.coalesced) == (300, ((100, 7), (200, 12)), False)


def test_lines_in_one_piece_are_coalesced_and_an_incomplete_one_is_cut() -> None:
    first, second, third = event(1), event(2), event(3)
    chunks = watch_of((0.1, first + second[:5]), (0.2, second[5:] + third))
    assert [(chunk.at, chunk.split_at, chunk.coalesced) for chunk in chunks] == [
        (100, (), False),
        (200, ((100, 5),), True),
        (200, (), True),
    ]


def test_a_line_without_its_bookkeeping_is_cut_in_proportion() -> None:
    line = event(1, managedFields=["x" * 1000])
    (chunk,) = watch_of((0.1, line[: len(line) // 2]), (0.2, line[len(line) // 2 :]))
    assert chunk.event == {"type": "ADDED", "object": {"n": 1}}
    assert chunk.split_at[0][1] == pytest.approx(len(event(1)) // 2, abs=1)


def test_lines_that_are_not_events_are_kept() -> None:
    chunks = watch_of((0.1, b"garbage\n"), (0.2, event(1)), (0.3, b'{"type": "ADD'))
    assert [chunk.data for chunk in chunks] == [b"garbage\n", b"", b'{"type": "ADD']


def test_versions_are_numbered_in_the_order_of_the_server() -> None:
    answers = [b'{"metadata": {"resourceVersion": "%d"}}' % version for version in (1000, 99, 1000, 345)]
    exchanges = [Exchange(0, "GET", "/x", {}, status=200, chunks=[(0.0, answer)]) for answer in answers]
    versions = [step.response.json["metadata"]["resourceVersion"] for step in cassette_of(exchanges).steps]
    assert versions == ["<version-3>", "<version-1>", "<version-3>", "<version-2>"]


def test_addresses_are_replaced_and_text_that_looks_like_a_placeholder_is_escaped() -> None:
    time = "2026-11-23T00:00:07Z"
    body = json.dumps({"message": f"dial 10.0.0.7:443 and 10.0.0.8, not <job-1>, at {time}", "t": time}).encode()
    (step,) = cassette_of([Exchange(0, "GET", "/x", {}, status=200, chunks=[(0.0, body)])]).steps
    assert step.response.json == {
        "message": "dial 192.0.2.1:443 and 192.0.2.2, not <literal:job-1>, at 2026-11-23T00:00:07Z",
        "t": "<time+7s>",
    }


def test_a_time_that_is_centuries_from_the_recording_is_kept() -> None:
    times = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"]
    body = json.dumps({"times": times}).encode()
    (step,) = cassette_of([Exchange(0, "GET", "/x", {}, status=200, chunks=[(0.0, body)])]).steps
    assert step.response.json == {"times": [*times[:2], "<time-1795392000s>"]}


def test_text_in_programs_is_not_replaced(tmp_path: Path) -> None:
    """The names of nodes and invocations, and dates, are text in a program."""
    code = "local 10.0.0.7 1 2026-11-23T00:00:07Z <uid-1> 2026-99-99T00:00:00Z"

    async def main(sandbox: AsyncSandbox) -> str:
        result = await sandbox.run(code, annotations={"adk.agent.google.com/invocation-id": "1"})
        return result.stdout

    assert record(tmp_path / "c.yaml", main) == f"ran {code}"
    found = steps(tmp_path / "c.yaml")
    assert found["create-configmaps-1"].body["data"]["code_0"] == code.replace("<uid-1>", "<literal:uid-1>")
    annotations = found["create-jobs-1"].body["metadata"]["annotations"]
    assert annotations == {
        "adk.agent.google.com/invocation-id": "<invocation-1>",
        "gke-sandbox/program": annotations["gke-sandbox/program"],
    }

    async def again(sandbox: AsyncSandbox) -> str:
        return (await sandbox.run(code, annotations={"adk.agent.google.com/invocation-id": "another"})).stdout

    assert replay(tmp_path / "c.yaml", again, strict=True) == f"ran {code}"


def test_a_recording_of_two_sandboxes_is_one(tmp_path: Path) -> None:
    from gke_sandbox.local.runtimes.scripted import ScriptedRuntime
    from gke_sandbox.local.transport import LocalTransport

    tape = Recorder(tmp_path / "c.yaml", now=lambda: BEGAN)

    async def main() -> None:
        for _ in range(2):
            cluster = LocalTransport(ScriptedRuntime(program(out("x"))))
            async with AsyncSandbox(Cluster.transport(RecordingTransport(cluster, tape))) as sandbox:
                await one(sandbox)

    run_on_mock_clock(main)
    assert {"create-jobs-1", "create-jobs-2", "list-pods", "list-pods-again-2"} <= steps(
        tmp_path / "c.yaml"
    ).keys()


def test_nothing_is_written_without_a_request(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> None:
        return None

    record(tmp_path / "c.yaml", main)
    assert not (tmp_path / "c.yaml").exists()


def test_a_stopped_run_does_not_replace_a_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "c.yaml").write_text("a good one")

    async def breaks_off(sandbox: AsyncSandbox) -> None:
        await one(sandbox)
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        record(tmp_path / "c.yaml", breaks_off)
    assert (tmp_path / "c.yaml").read_text() == "a good one"
    assert "c.yaml is not written: the run was stopped by RuntimeError('enough')" in caplog.text


def test_a_refused_run_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        record(tmp_path / "c.yaml", one, Fault(Respond(403, "Forbidden", "no"), Match("create", "jobs")))
    with pytest.raises(Forbidden):
        replay(tmp_path / "c.yaml", one)

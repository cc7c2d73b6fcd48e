"""A small HTTP server that answers like the API server of the embedded cluster: ``python -m benchmarks.server``.

It knows the requests of a run, of a warm pod and of google-adk's executor, and takes few microseconds for each, so
that a benchmark measures the client. Pods reach their phases at fixed times. The output of a program is its code.

``GET /bench`` returns the counts since the last ``POST /bench``, which resets them and sets options.
``DELETE /bench`` forgets all Jobs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

START = b'\x1estart 38\n{"protocol": 1, "python": "3.11.2"}   \n'
EXIT = {"code": 0, "signal": None, "timed_out": False, "seconds": 0.01, "dropped": {"out": 0, "err": 0}}
DATE = "Fri, 01 Jan 2027 00:00:00 GMT"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CREATED = "2027-01-01T00:00:00Z"


def frame(kind: str, payload: bytes) -> bytes:
    """Return one frame of the runner's protocol."""
    return b"\x1e%s %d\n%s\n" % (kind.encode(), len(payload), payload)


PIECE = frame("out", b"".join(b"line %d\n" % number for number in range(3000)))
"""A frame of 28 KB; the log of the pod ``content`` has only such frames."""


@dataclass
class Options:
    """The times of a server, in seconds, and its limits."""

    delay: float = 0.0
    """From a request to its response."""
    rate: float = 0.0
    """Requests per second; more are answered with 429. 0 is no limit. Streams that are open do not count."""
    scheduled: float = 0.0
    """From the creation of a Job to its pod, which has a node."""
    running: float = 0.0
    """From the creation of a Job to its running container."""
    finished: float = 0.0
    """From the start of the container to the end of its program."""
    log_end: float = 0.0
    """From the end of the program to the end of its log."""
    job_done: float = 0.0
    """From the end of the program to the status of its Job."""
    output_bytes: int = 0
    """Output of each program, in addition to its code."""
    ticks: int = 0
    """Lines that each program prints, one every 20 ms, with the time: ``tick 123.456``."""
    log_bytes: int = 0
    """The size of the log of the pod ``content``."""


@dataclass
class Job:
    """A Job with its pod."""

    body: dict[str, Any]
    options: Options
    config_map: bytes | None = None
    pod: dict[str, Any] | None = None
    finished_at: float | None = None
    log: bytearray = field(default_factory=bytearray)
    readers: list[Callable[[bytes, bool], None]] = field(default_factory=list)
    log_ended: bool = False
    deleted: bool = False

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def container(self) -> dict[str, Any]:
        return dict(self.body["spec"]["template"]["spec"]["containers"][0])

    @property
    def is_framed(self) -> bool:
        """Whether its container has our runner: that of google-adk prints plain text."""
        return "code.py" not in str(self.container.get("command"))

    def feed(self, data: bytes, *, end: bool = False) -> None:
        """Append to the log, and send it to those that follow it."""
        self.log += data
        self.log_ended = self.log_ended or end
        for reader in list(self.readers):
            reader(data, end)


class State:
    """The objects, watches and counts of the server."""

    def __init__(self) -> None:
        self.connections = 0
        self.version = 1000
        self.jobs: dict[str, Job] = {}
        self.watches: dict[str, list[tuple[str, Callable[[dict[str, Any]], None]]]] = {"pods": [], "jobs": []}
        self.reset({})

    def reset(self, options: dict[str, Any]) -> None:
        self.options = Options(**options)
        self.requests: Counter[str] = Counter()
        self.refused = 0
        self.received = self.sent = 0
        self.max_connections = self.connections
        self.readable: dict[str, float] = {}
        self.window = (0.0, 0)

    def report(self) -> dict[str, Any]:
        return {
            "requests": dict(self.requests),
            "refused": self.refused,
            "received": self.received,
            "sent": self.sent,
            "max_connections": self.max_connections,
            "readable": self.readable,
            "jobs_left": sum(not job.deleted for job in self.jobs.values()),
        }

    def exceeds_rate(self) -> bool:
        """Count a request. Return True if there are too many in this second."""
        if not self.options.rate:
            return False
        second = float(int(time.monotonic()))
        count = self.window[1] + 1 if self.window[0] == second else 1
        self.window = (second, count)
        return count > self.options.rate

    def next_version(self) -> str:
        self.version += 1
        return str(self.version)

    def notify(self, kind: str, type_: str, obj: dict[str, Any], name: str) -> None:
        obj["metadata"]["resourceVersion"] = self.next_version()
        labels = obj["metadata"].get("labels") or {}
        for selector, send in list(self.watches[kind]):
            if selector_matches(selector, labels, name):
                send({"type": type_, "object": obj})

    def create_job(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["metadata"]["name"]
        body["metadata"] |= {
            "uid": f"uid-{self.next_version()}",
            "resourceVersion": self.next_version(),
            "creationTimestamp": CREATED,
            "namespace": "default",
        }
        body["status"] = {}
        job = Job(body, self.options)
        self.jobs[name] = job
        loop = asyncio.get_running_loop()
        loop.call_later(self.options.scheduled, self.create_pod, job)
        loop.call_later(self.options.running, self.start_pod, job)
        return body

    def create_pod(self, job: Job) -> None:
        if job.deleted:
            return
        template = job.body["spec"]["template"]
        labels = {**(template.get("metadata") or {}).get("labels", {}), "batch.kubernetes.io/job-name": job.name}
        labels["job-name"] = job.name
        job.pod = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": f"{job.name}-x",
                "namespace": "default",
                "uid": f"pod-{self.next_version()}",
                "labels": labels,
            },
            "spec": {**template["spec"], "nodeName": "node1"},
            "status": {"phase": "Pending"},
        }
        self.set_state(job, "Pending", {"waiting": {"reason": "ContainerCreating"}}, "ADDED")

    def set_state(self, job: Job, phase: str, state: dict[str, Any], type_: str = "MODIFIED") -> None:
        if job.pod is None or job.deleted:
            return
        running = "running" in state
        container = {"name": job.container["name"], "state": state, "started": running, "ready": running}
        container |= {"image": job.container["image"], "imageID": ""}
        job.pod = {**job.pod, "metadata": dict(job.pod["metadata"])}
        job.pod["status"] = {"phase": phase, "containerStatuses": [{"restartCount": 0, **container}]}
        self.notify("pods", type_, job.pod, job.name)

    def start_pod(self, job: Job) -> None:
        if job.deleted:
            return
        waits = bool(job.container.get("stdin"))
        if job.pod is None or (not waits and job.config_map is None):
            asyncio.get_running_loop().call_later(0.01, self.start_pod, job)
            return
        self.set_state(job, "Running", {"running": {"startedAt": CREATED}})
        if not waits:
            loop = asyncio.get_running_loop()
            if job.is_framed:
                job.feed(START)
                for number in range(job.options.ticks):
                    loop.call_later(0.02 * number, self.tick, job)
            loop.call_later(job.options.finished, self.finish, job, job.config_map or b"")

    def tick(self, job: Job) -> None:
        job.feed(frame("out", b"tick %.6f\n" % time.monotonic()))

    def finish(self, job: Job, output: bytes) -> None:
        if job.deleted:
            return
        output += b"x" * job.options.output_bytes
        if job.is_framed:
            for start in range(0, len(output), 32768):
                job.feed(frame("out", output[start : start + 32768]))
            output = frame("exit", json.dumps(EXIT).encode())
        job.finished_at = self.readable[job.name] = time.monotonic()
        job.feed(output)
        loop = asyncio.get_running_loop()
        loop.call_later(job.options.log_end, lambda: job.feed(b"", end=True))
        loop.call_later(job.options.job_done, self.complete_job, job)

    def complete_job(self, job: Job) -> None:
        if job.deleted:
            return
        terminated = {"exitCode": 0, "reason": "Completed", "startedAt": CREATED, "finishedAt": CREATED}
        self.set_state(job, "Succeeded", {"terminated": terminated})
        job.body["status"] = {"succeeded": 1, "completionTime": CREATED}
        self.notify("jobs", "MODIFIED", job.body, job.name)

    def delete_job(self, name: str) -> bool:
        job = self.jobs.pop(name, None)
        if job is None:
            return False
        if job.pod is not None:
            self.notify("pods", "DELETED", job.pod, job.name)
        job.deleted = True
        job.feed(b"", end=True)
        return True


def selector_matches(selector: str, labels: dict[str, str], name: str) -> bool:
    """Whether a label selector or a field selector of one name matches."""
    key, _, value = selector.partition("=")
    return not key or (name if key == "metadata.name" else labels.get(key)) == value


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, streams, or an attached container."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = bytearray()
        self.on_close: list[Callable[[], None]] = []
        self.attached: Job | None = None
        self.stdin = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        state = self.state
        state.connections += 1
        state.max_connections = max(state.max_connections, state.connections)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.state.connections -= 1
        self.stop_streams()

    def stop_streams(self) -> None:
        calls, self.on_close = self.on_close, []
        for call in calls:
            call()

    def data_received(self, data: bytes) -> None:
        self.state.received += len(data)
        self.buffer += data
        if self.attached is not None:
            self.read_messages(self.attached)
            return
        head, separator, _ = bytes(self.buffer).partition(b"\r\n\r\n")
        if not separator:
            return
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = len(head) + 4 + (int(length[1]) if length else 0)
        if len(self.buffer) < size:
            return
        body = bytes(self.buffer[len(head) + 4 : size])
        del self.buffer[:size]
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        delay = 0.0 if target == "/bench" else self.state.options.delay
        if delay:
            asyncio.get_running_loop().call_later(delay, self.answer, method, target, head, body)
        else:
            self.answer(method, target, head, body)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.state.sent += len(data)
            self.transport.write(data)

    def reply(self, status: int, obj: Any, extra: str = "", *, content_type: str = "application/json") -> None:
        body = obj if isinstance(obj, bytes) else json.dumps(obj, separators=(",", ":")).encode()
        head = f"HTTP/1.1 {status} S\r\nContent-Type: {content_type}\r\nDate: {DATE}\r\n{extra}"
        self.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def status(self, code: int, reason: str, extra: str = "") -> None:
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
        self.reply(code, {**body, "reason": reason, "message": reason}, extra)

    def chunk(self, data: bytes) -> None:
        self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def begin_stream(self, content_type: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nDate: {DATE}\r\n"
        self.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())

    def answer(self, method: str, target: str, head: bytes, body: bytes) -> None:
        state, url = self.state, urlsplit(target)
        if url.path == "/bench":
            if method == "DELETE":
                for job in state.jobs.values():
                    job.deleted = True
                state.jobs.clear()
            elif method == "POST":
                state.reset(json.loads(body or b"{}"))
            report = state.report()
            self.reply(200, report)
            return
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        at = parts.index("namespaces") + 2 if "namespaces" in parts else len(parts)
        kind, name, sub = (*parts[at:], "", "", "")[:3]
        verb = "WATCH" if query.get("watch", "").lower() == "true" else method
        state.requests[f"{verb} {sub or kind or url.path}"] += 1
        if state.exceeds_rate():
            state.refused += 1
            self.status(429, "TooManyRequests", "Retry-After: 1\r\n")
        elif parts == ["version"]:
            self.reply(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.2"})
        elif verb == "WATCH":
            self.watch(kind, query)
        elif method == "POST" and kind == "jobs":
            self.reply(201, state.create_job(json.loads(body)))
        elif method == "POST" and kind == "configmaps":
            self.create_config_map(json.loads(body))
        elif method == "PATCH" and kind == "configmaps":
            job = json.loads(body)["metadata"]["ownerReferences"][0]["name"]
            if job in state.jobs:
                state.jobs[job].config_map = b"hello\n"
            self.reply(200, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}})
        elif method == "DELETE" and kind == "jobs":
            if state.delete_job(name):
                self.reply(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
            else:
                self.status(404, "NotFound")
        elif kind == "pods" and sub == "log":
            self.log(name, query)
        elif kind == "pods" and sub == "attach":
            self.attach(name, head)
        elif method == "GET" and not name:
            self.list(kind, query)
        elif method == "GET" and kind == "jobs" and name in state.jobs:
            self.reply(200, state.jobs[name].body)
        else:
            self.status(404, "NotFound")

    def create_config_map(self, body: dict[str, Any]) -> None:
        state, metadata = self.state, body["metadata"]
        metadata |= {"uid": f"cm-{state.next_version()}", "resourceVersion": state.next_version()}
        if metadata["name"] in state.jobs:
            data = body.get("data") or {}
            job = state.jobs[metadata["name"]]
            job.config_map = (data.get("code_0") or "hello\n").encode()
        self.reply(201, body)

    def list(self, kind: str, query: dict[str, str]) -> None:
        state, items = self.state, []
        if kind == "pods":
            selector = query.get("labelSelector", "")
            for job in state.jobs.values():
                pod = job.pod
                if pod and selector_matches(selector, pod["metadata"]["labels"], job.name):
                    items.append({key: pod[key] for key in ("metadata", "spec", "status")})
        kinds = {"pods": "PodList", "jobs": "JobList", "events": "EventList"}
        body = {"kind": kinds.get(kind, "List"), "apiVersion": "v1", "items": items}
        self.reply(200, {**body, "metadata": {"resourceVersion": state.next_version()}})

    def watch(self, kind: str, query: dict[str, str]) -> None:
        selector = query.get("labelSelector") or query.get("fieldSelector") or ""
        self.begin_stream("application/json")

        def send(event: dict[str, Any]) -> None:
            self.chunk(json.dumps(event, separators=(",", ":")).encode() + b"\n")

        watcher = (selector, send)
        self.state.watches[kind].append(watcher)
        self.on_close.append(lambda: self.state.watches[kind].remove(watcher))
        if kind == "jobs":
            for job in list(self.state.jobs.values()):
                if selector_matches(selector, {}, job.name):
                    send({"type": "ADDED", "object": job.body})

    def log(self, pod: str, query: dict[str, str]) -> None:
        if pod == "content":
            whole = PIECE * (self.state.options.log_bytes // len(PIECE))
            self.reply(200, whole, content_type="text/plain")
            return
        job = self.state.jobs.get(pod.removesuffix("-x"))
        if job is None:
            self.status(404, "NotFound")
            return
        if query.get("follow") != "true":
            self.reply(200, bytes(job.log), content_type="text/plain")
            return
        self.begin_stream("text/plain")

        def send(data: bytes, end: bool) -> None:
            if data:
                self.chunk(data)
            if end:
                self.stop_streams()
                self.write(b"0\r\n\r\n")

        job.readers.append(send)
        self.on_close.append(lambda: job.readers.remove(send))
        send(bytes(job.log), job.log_ended)

    # -- attach -------------------------------------------------------------------------------------------

    def attach(self, pod: str, head: bytes) -> None:
        job = self.state.jobs.get(pod.removesuffix("-x"))
        key = re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", head)
        if job is None or key is None:
            self.status(404, "NotFound")
            return
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID, usedforsecurity=False).digest()).decode()
        fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
        protocol = "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
        self.write(f"HTTP/1.1 101 Switching Protocols\r\n{fields}{protocol}\r\n".encode())
        self.attached = job
        self.message(b"\x01")

    def message(self, payload: bytes, opcode: int = 2) -> None:
        size = len(payload)
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        if size > 0xFFFF:
            length = b"\x7f" + size.to_bytes(8, "big")
        self.write(bytes([0x80 | opcode]) + length + payload)

    def read_messages(self, job: Job) -> None:
        data = self.buffer
        while len(data) >= 6:
            size, at = data[1] & 0x7F, 2
            if size >= 126:
                at = 4 if size == 126 else 10
                size = int.from_bytes(data[2:at], "big")
            if len(data) < at + 4 + size:
                return
            mask = bytes(data[at : at + 4]) * (size // 4 + 1)
            payload = (
                int.from_bytes(data[at + 4 : at + 4 + size], "big") ^ int.from_bytes(mask[:size], "big")
            ).to_bytes(size, "big")
            opcode = data[0] & 0x0F
            del data[: at + 4 + size]
            if opcode == 8:
                self.message(payload, 8)
                self.transport.close()
                return
            if opcode == 9:
                self.message(payload, 10)
            elif opcode in (0, 2):
                self.receive_stdin(job, payload[1:] if opcode == 2 else payload)

    def receive_stdin(self, job: Job, data: bytes) -> None:
        self.stdin += data
        line, separator, rest = bytes(self.stdin).partition(b"\n")
        if not separator or job.finished_at is not None:
            return
        size, contents = map(int, line.split())
        if len(rest) >= size + contents:
            length = json.loads(rest[:size])["code"][1][0]
            output = rest[size : size + length]
            send = lambda data, _: self.message(b"\x01" + data)  # noqa: E731
            job.readers.append(send)
            self.on_close.append(lambda: job.readers.remove(send))
            job.feed(START)
            asyncio.get_running_loop().call_later(job.options.finished, self.state.finish, job, output)


async def serve() -> None:
    state = State()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    # End with the process that started it.
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())

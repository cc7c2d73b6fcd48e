"""Trim full recordings to ``recorded/*.json``, with only the data that `test_recordings.py` compares.

Those of attach go to ``recorded_attach/*.json``, for `test_attach_recordings.py`.

Run it from the repository's root with the directory that holds the recordings::

    python -m tests.local.trim_recordings DIRECTORY

A trimmed exchange has its request, and of the answer the status, the headers that matter, and

* ``body``: of a Status, a created object, a Job or a list of Events, without managedFields;
* ``log``: the chunks of a log, (milliseconds, text);
* ``pods``: the events of a watch, each as a state (see `state`), and ``first``: each pod as it was added.

An attached connection has ``frames``: (milliseconds, sender, channel, text or number of bytes), or ``close`` and
the code. Adjacent large frames of a channel are one.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("recorded")
RECORDED_ATTACH = Path(__file__).with_name("recorded_attach")

_HEADERS = ("warning", "retry-after", "content-type")
_ATTACH_HEADERS = ("content-type", "sec-websocket-protocol")
_LONGEST_LOG = 60


def without_managed_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_managed_fields(one) for name, one in value.items() if name != "managedFields"}
    return [without_managed_fields(one) for one in value] if isinstance(value, list) else value


def state(event: dict[str, Any]) -> dict[str, Any]:
    """Return the compared parts of one watch event."""
    obj = event["object"]
    metadata, status = obj.get("metadata", {}), obj.get("status", {})
    if event["type"] in ("BOOKMARK", "ERROR"):
        kept = {"type": event["type"]}
        if event["type"] == "ERROR":
            kept["status"] = obj
        elif metadata.get("annotations"):
            kept["annotations"] = metadata["annotations"]
        return kept
    containers = status.get("containerStatuses") or [{"state": {"none": {}}}]
    ((kind, container),) = containers[0]["state"].items()
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    return {
        "type": event["type"],
        "pod": metadata["name"],
        "phase": status["phase"],
        "container": kind,
        "reason": container.get("reason", ""),
        "exit_code": container.get("exitCode"),
        "message": container.get("message", ""),
        "pod_reason": status.get("reason", ""),
        "pod_message": status.get("message", ""),
        "deleting": "deletionTimestamp" in metadata,
        "sandbox": conditions.get("PodReadyToStartContainers") == "True",
    }


def watch_events(chunks: list[tuple[int, str]]) -> list[tuple[int, dict[str, Any]]]:
    """Return the events of a watch, each with the time at which its line was complete."""
    events, rest = [], ""
    for at, text in chunks:
        *lines, rest = (rest + text).split("\n")
        events += [(at, json.loads(line)) for line in lines]
    return events


def trim(recording: dict[str, Any]) -> dict[str, Any]:
    return {
        "scenario": recording["scenario"],
        "server": recording["server"],
        "exchanges": [_exchange(exchange) for exchange in recording["exchanges"]],
    }


def _exchange(exchange: dict[str, Any]) -> dict[str, Any]:
    request, response = exchange["request"], exchange["response"]
    kept: dict[str, Any] = {"status": response["status"]}
    headers = {name: value for name, value in response.get("headers", {}).items() if name in _HEADERS}
    if headers:
        kept["headers"] = headers
    if "chunks" in response:
        kept["ended_by"] = response["ended_by"]
        chunks = [(chunk["at_ms"], _text(chunk)) for chunk in response["chunks"]]
        kept.update(_watched(chunks) if request["query"].get("watch") else {"log": _shortened(chunks)})
    elif _worth_keeping(request, response):
        kept["body"] = without_managed_fields(response["body"])
    elif isinstance(response.get("body"), dict):
        kept["kind"] = response["body"].get("kind", "")
    wanted = {name: request[name] for name in ("method", "path", "query", "body") if request.get(name)}
    return {"at_ms": exchange["at_ms"], "request": wanted, "response": kept}


def _text(chunk: dict[str, Any]) -> str:
    if "text" in chunk:
        return str(chunk["text"])
    return base64.b64decode(chunk["base64"]).decode("utf-8", "surrogateescape")


def _shortened(chunks: list[tuple[int, str]]) -> list[tuple[int, str]]:
    if len(chunks) <= _LONGEST_LOG:
        return chunks
    return chunks[: _LONGEST_LOG // 2] + chunks[-_LONGEST_LOG // 2 :]


def _watched(chunks: list[tuple[int, str]]) -> dict[str, Any]:
    events = watch_events(chunks)
    first = [without_managed_fields(event["object"]) for _, event in events if event["type"] == "ADDED"]
    states: list[tuple[int, dict[str, Any]]] = []
    latest: dict[str, dict[str, Any]] = {}
    for at, event in events:
        now = state(event)
        name = now.get("pod", "")
        if now["type"] != "MODIFIED" or {**now, "type": ""} != {**latest.get(name, {}), "type": ""}:
            states.append((at, now))
            latest[name] = now
    return {"pods": states, "first": first}


def _worth_keeping(request: dict[str, Any], response: dict[str, Any]) -> bool:
    body = response.get("body")
    if not isinstance(body, dict):
        return False
    return (
        body.get("kind") in ("Status", "EventList", "PodList")
        or body.get("kind") == "Job"
        or request["method"] == "POST"
    )


def trim_attach(recording: dict[str, Any]) -> dict[str, Any]:
    return {
        "scenario": recording["scenario"],
        "server": recording["server"],
        "exchanges": [_attach_exchange(exchange) for exchange in recording["exchanges"]],
    }


def _attach_exchange(exchange: dict[str, Any]) -> dict[str, Any]:
    kept = {name: exchange[name] for name in ("at_ms", "note", "request") if name in exchange}
    if "response" in exchange:
        response = exchange["response"]
        kept["response"] = {name: response[name] for name in ("status", "took_ms") if name in response}
        if headers := {
            name: value for name, value in response.get("headers", {}).items() if name in _ATTACH_HEADERS
        }:
            kept["response"]["headers"] = headers
        if isinstance(response.get("body"), str):
            kept["response"]["body"] = response["body"]
        elif "body" in response:
            (container,) = response["body"]["status"]["containerStatuses"]
            kept["response"]["pod"] = {"phase": response["body"]["status"]["phase"], "state": container["state"]}
    if exchange.get("frames"):
        kept["frames"] = _frames(exchange["frames"])
    if exchange.get("ended", {}).get("by") == "client":
        kept["cut_ms"] = exchange["ended"]["at_ms"]
    return kept


def _frames(frames: list[dict[str, Any]]) -> list[list[Any]]:
    kept: list[list[Any]] = []
    for frame in frames:
        if frame["type"] == "close":
            kept.append([frame["at_ms"], frame["from"], "close", frame["code"]])
            continue
        head = [frame["from"], frame["channel"]]
        content = frame.get("text", frame.get("bytes"))
        if isinstance(content, int) and kept and kept[-1][1:3] == head and isinstance(kept[-1][3], int):
            kept[-1][3] += content
        else:
            kept.append([frame["at_ms"], *head, content])
    return kept


def main() -> None:
    source = Path(sys.argv[1])
    for path in sorted(source.glob("*.json")):
        recording = json.loads(path.read_text())
        is_attach = recording["scenario"].startswith("attach-")
        trimmed = trim_attach(recording) if is_attach else trim(recording)
        # One exchange a line: short enough to look at, and a difference shows where it is.
        lines = ",\n".join(json.dumps(exchange) for exchange in trimmed.pop("exchanges"))
        head = json.dumps(trimmed)[:-1]
        folder = RECORDED_ATTACH if is_attach else RECORDED
        (folder / path.name).write_text(f'{head}, "exchanges": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()

"""Responses of a real API server (Kubernetes 1.36.2), without managedFields, pod specs and most request bodies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOME = Path(__file__).with_name("recorded")


@dataclass(frozen=True)
class Recorded:
    """A request and its response: `chunks` for a stream, else `body`."""

    method: str
    path: str
    name: str | None
    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes]


def recorded(scenario: str) -> list[Recorded]:
    """Return the exchanges of a scenario in order."""
    document: dict[str, Any] = json.loads((HOME / f"{scenario}.json").read_text())
    return [
        Recorded(
            method=exchange["request"]["method"],
            path=exchange["request"]["path"],
            name=exchange["request"].get("name"),
            status=exchange["response"]["status"],
            headers=exchange["response"]["headers"],
            body=json.dumps(exchange["response"].get("body")).encode(),
            chunks=[
                *(chunk.encode() for chunk in exchange["response"].get("chunks", ())),
                *(f"{line}\n".encode() for line in exchange["response"].get("lines", ())),
            ],
        )
        for exchange in document["exchanges"]
    ]


def recorded_errors(scenario: str) -> list[Recorded]:
    """Return the exchanges of a scenario that have an error response."""
    return [exchange for exchange in recorded(scenario) if exchange.status >= 400]

"""Requests and bytes of one run, and of many at once."""

from __future__ import annotations

from typing import Any

from .harness import Size, Table, has_adk, measure, test_server

PACE = {"scheduled": 0.02, "running": 0.3, "finished": 0.05, "log_end": 0.5, "job_done": 0.6}
CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gke-sandbox": ("ours", {}),
    "gke-sandbox, warm": ("ours", {"warm": True}),
    "google-adk": ("google-adk", {}),
}


def run(size: Size) -> Table:
    many = size.choose(100, 20, 3)
    columns = ["runs", "requests per run", "lists", "watches", "KiB sent", "KiB received", "Jobs left"]
    table = Table("requests", columns)
    with test_server() as server:
        for count in (1, many):
            for name, (client, flags) in CLIENTS.items():
                if client == "google-adk" and not has_adk():
                    table.add_missing(name)
                    continue
                in_flight = min(count, 10) if flags else count
                flags = {**flags, "runs": count, "in_flight": in_flight}
                _add(table, name, count, measure(client, server, PACE, **flags)["server"])
    table.notes += [
        "A list and a watch of the pods, which all runs of one client share, were opened before the measurement.",
        "Bytes are per run, at the server.",
    ]
    return table


def _add(table: Table, name: str, runs: int, counts: dict[str, Any]) -> None:
    requests = counts["requests"]
    lists = sum(requests.get(f"GET {kind}", 0) for kind in ("pods", "events", "jobs"))
    watches = sum(count for what, count in requests.items() if what.startswith("WATCH"))
    per_run = sum(requests.values()) / runs
    received, sent = (counts[way] / 1024 / runs for way in ("received", "sent"))
    left = counts["jobs_left"] - (min(runs, 10) if "warm" in name else 0)
    table.add(name, runs, per_run, lists, watches, received, sent, left)

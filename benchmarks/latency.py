"""The time that a client adds: from the moment when the output was readable to the result."""

from __future__ import annotations

from typing import Any

from .harness import Samples, Size, Table, has_adk, measure, test_server

# Medians of a real server, in seconds: Kubernetes 1.36 with gVisor.
PACE = {"scheduled": 0.02, "running": 0.52, "finished": 0.05, "log_end": 1.0, "job_done": 2.4}
WARM_PACE = {**PACE, "finished": 0.02}
CLIENTS: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "gke-sandbox": ("ours", {}, PACE),
    "gke-sandbox, warm": ("ours", {"warm": True, "in_flight": 2, "pause": 0.7}, WARM_PACE),
    "google-adk": ("google-adk", {}, PACE),
}


def run(size: Size) -> Table:
    rounds, runs = size.choose((5, 12), (1, 4), (1, 2))
    added: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    with test_server() as server:
        for _ in range(rounds):
            for name, (client, flags, pace) in CLIENTS.items():
                if client == "google-adk" and not has_adk():
                    continue
                flags = {**flags, "runs": runs, "sequential": True}
                result = measure(client, server, pace, **flags)
                readable = result["server"]["readable"]
                times = list(readable.values())
                for number, (job, called, returned) in enumerate(result["returned"]):
                    since = readable[job] if job else times[number]
                    added.setdefault(name, []).append((returned - since) * 1000)
                    whole.setdefault(name, []).append((returned - called) * 1000)
    table = Table("latency", ["added, ms", "99th percentile, ms", "whole run, ms"])
    for name in CLIENTS:
        if name in added:
            samples = Samples(added[name])
            table.add(name, samples, samples.quantile(0.99), Samples(whole[name]))
        else:
            table.add_missing(name)
    table.notes.append(f"{rounds * runs} runs of each, one after the other; pod phases as on a real server.")
    return table

"""The time that a client adds: from the moment when the output was readable to the result."""

from __future__ import annotations

from typing import Any

from .harness import Samples, Size, Table, has_adk, measure, test_server

# Medians of a real server, in seconds: Kubernetes 1.36 with gVisor.
PACE = {"scheduled": 0.02, "running": 0.52, "finished": 0.05, "log_end": 1.0, "job_done": 2.4}
WARM_PACE = {**PACE, "finished": 0.02}
THREADS = 4
CLIENTS: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "gke-sandbox": ("ours", {"threads": THREADS}, PACE),
    # A dialogue: one run after the other. The pool fills the place of a pod that was taken within five runs.
    "gke-sandbox, warm": ("ours", {"threads": 1, "warm": True, "in_flight": 8, "pause": 0.1}, WARM_PACE),
    # Its runs have no name that the server knows, so they come one after the other.
    "google-adk": ("google-adk", {"threads": 1}, PACE),
}
ENOUGH_FOR_P99 = 200


def run(size: Size) -> Table:
    rounds, runs = size.choose((5, 80), (1, 20), (1, 4))
    added: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    with test_server() as server:
        for _ in range(rounds):
            for name, (client, flags, pace) in CLIENTS.items():
                if client == "google-adk" and not has_adk():
                    continue
                count = runs if client == "ours" else max(runs // 10, 1)
                result = measure(client, server, pace, runs=count, **flags)
                readable = result["server"]["readable"]
                times = list(readable.values())
                for number, (job, called, returned) in enumerate(result["returned"]):
                    since = readable[job] if job else times[number]
                    added.setdefault(name, []).append((returned - since) * 1000)
                    whole.setdefault(name, []).append((returned - called) * 1000)
    table = Table("latency", ["runs", "added, ms", "99th percentile, ms", "whole run, ms"])
    for name in CLIENTS:
        if name in added:
            samples = Samples(added[name])
            p99 = samples.quantile(0.99) if len(added[name]) >= ENOUGH_FOR_P99 else None
            table.add(name, len(added[name]), samples, p99, Samples(whole[name]))
        else:
            table.add_missing(name)
    table.notes.append(
        f"Pod phases as on a real server; {THREADS} threads start the cold runs of gke-sandbox. Its warm runs and "
        f"those of google-adk come one after the other. The percentile needs {ENOUGH_FOR_P99} runs."
    )
    return table

"""Latency and scale on a real cluster: ``--kubeconfig PATH``. google-adk leaves its Jobs for ten minutes."""

from __future__ import annotations

from typing import Any

from .harness import Samples, Size, Table, is_installed, run_client

CLIENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gke-sandbox": ("ours", "", {}),
    "gke-sandbox, warm": ("ours", "", {"warm": True, "in_flight": 3, "settle": 10.0, "pause": 3.0}),
    "google-adk": ("google-adk", "google-adk", {}),
    "Agent Sandbox": ("agent-sandbox", "k8s-agent-sandbox", {}),
}


def run(size: Size) -> Table:
    table = Table("live", ["whole run, ms", "90th percentile, ms", "10 at once, s", "failed"])
    if not size.kubeconfig:
        table.notes.append("Skipped: no --kubeconfig.")
        return table
    rounds, runs = size.choose((3, 10), (1, 3), (1, 1))
    times: dict[str, list[float]] = {}
    together: dict[str, list[float]] = {}
    failed: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, (client, distribution, flags) in CLIENTS.items():
            if (distribution and not is_installed(distribution)) or failed.get(name):
                continue
            try:
                result = run_client(client, kubeconfig=size.kubeconfig, runs=runs, threads=1, **flags)
                times.setdefault(name, []).extend((end - start) * 1000 for _, start, end in result["returned"])
                if not flags:
                    result = run_client(client, kubeconfig=size.kubeconfig, runs=10, in_flight=10)
                    together.setdefault(name, []).append(result["seconds"])
                    failed.setdefault(name, []).extend(result["failures"])
            except RuntimeError as error:
                failed.setdefault(name, []).append(str(error).strip().splitlines()[-1])
    for name, (_, distribution, _) in CLIENTS.items():
        if distribution and not is_installed(distribution):
            table.add_missing(name)
            continue
        values = Samples(times[name]) if name in times else None
        at_once = Samples(together[name]) if name in together else None
        table.add(name, values, values and values.quantile(0.9), at_once, len(failed.get(name, ())))
        table.notes += [f"{name}: {text[:200]}" for text in failed.get(name, ())[:1]]
    return table

"""Many runs in flight against a server that is slow, or that rejects requests with 429."""

from __future__ import annotations

from .harness import Size, Table, has_adk, measure, test_server

PACE = {"scheduled": 0.02, "running": 0.5, "finished": 0.5, "log_end": 0.9, "job_done": 1.0}


def run(size: Size) -> Table:
    count, rate = size.choose((500, 20), (24, 20), (2, 20))
    servers = {"0.5 s per request": {"delay": 0.5}, f"{rate} requests per second": {"rate": rate}}
    table = Table("overload", ["server", "runs", "seconds", "requests/run", "429", "failed", "Jobs left"])
    with test_server() as server:
        for title, options in servers.items():
            for client, name in (("ours", "gke-sandbox"), ("google-adk", "google-adk")):
                if client == "google-adk" and not has_adk():
                    table.add_missing(name)
                    continue
                settle = 10 + 2 * count / rate
                flags = {"runs": count, "in_flight": count, "settle": settle}
                result = measure(client, server, {**PACE, **options}, **flags)
                counts = result["server"]
                per_run = sum(counts["requests"].values()) / count
                failed = len(result["failures"])
                table.add(
                    name, title, count, result["seconds"], per_run, counts["refused"], failed, counts["jobs_left"]
                )
                table.notes += [f"{name}, {title}: {error[:150]}" for error in sorted(set(result["failures"]))[:1]]
    return table

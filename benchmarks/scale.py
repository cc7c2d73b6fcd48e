"""Many runs in flight from one process."""

from __future__ import annotations

from .harness import Samples, Size, Table, has_adk, measure, test_server

COLUMNS = (
    *("in flight", "seconds", "CPU ms/run", "KiB/run", "peak MiB"),
    *("threads", "connections", "requests/run", "failed"),
)


def run(size: Size) -> Table:
    counts = size.choose((1, 10, 100, 1000), (1, 10, 100), (2,))
    rounds = size.choose(2, 1, 1)
    table = Table("scale", COLUMNS)
    clients = {"ours": "gke-sandbox", "httpx": "httpx alone", "google-adk": "google-adk"}
    per_run: dict[int, list[float]] = {}
    with test_server() as server:
        for count in counts:
            samples: dict[str, list[list[float]]] = {}
            for _ in range(rounds):
                for client in clients:
                    # 1,000 threads of google-adk take minutes, so once is enough.
                    if client != "google-adk" or (has_adk() and (count < 1000 or client not in samples)):
                        samples.setdefault(client, []).append(_measure(server, client, count))
            for client, name in clients.items():
                if client in samples:
                    table.add(name, count, *(Samples(values) for values in zip(*samples[client], strict=True)))
                else:
                    table.add_missing(name)
            per_run[count] = [sample[1] for sample in samples["ours"]]
    if 10 in per_run and max(counts) > 10:
        ratio = Samples(per_run[max(counts)]).median / Samples(per_run[10]).median
        table.notes.append(f"gke-sandbox: CPU per run at {max(counts)} / at 10: {ratio:.2f}.")
    table.notes += [
        "Programs run long enough that all are in flight; google-adk has a thread for each.",
        "httpx alone follows a log for each. So does gke-sandbox: what that needs is part of its figures.",
        "CPU and memory are those of the client's process; the server has its own.",
    ]
    return table


def _measure(server: str, client: str, count: int) -> list[float]:
    pace = {"scheduled": 0.02, "running": 0.5, "finished": 0.5 + count / 100, "log_end": 0.9, "job_done": 2.4}
    result = measure(client, server, pace, runs=count, in_flight=count, settle=10 + count / 20)
    counts = result["server"]
    return [
        result["seconds"],
        result["cpu"] * 1000 / count,
        result["memory"] / count,
        result["peak"] / 1024,
        result["threads"],
        counts["max_connections"],
        sum(counts["requests"].values()) / count,
        len(result["failures"]),
    ]

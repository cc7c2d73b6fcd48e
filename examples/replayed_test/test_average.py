"""A test that runs a program on a recorded cluster, cassettes/test_average.test_average.yaml.

To record it again on a cluster, run ``pytest --gke-sandbox-record=all``.
"""

from __future__ import annotations

from gke_sandbox import Cluster, Sandbox

PROGRAM = """
import csv, statistics
rows = list(csv.DictReader(open("data.csv")))
print(statistics.mean(float(row["price"]) for row in rows))
"""


def test_average(gke_sandbox_cassette: Cluster) -> None:
    with Sandbox(gke_sandbox_cassette) as sandbox:
        result = sandbox.run(PROGRAM, files={"data.csv": "price\n1.5\n2.5\n"}, timeout=30)
    assert result.stdout == "2.0\n"

"""Run one program with a file and print everything that it returns.

python examples/quickstart.py [--local]
"""

from __future__ import annotations

import sys

from gke_sandbox import Cluster, Sandbox

PROGRAM = """
import csv, json
rows = list(csv.DictReader(open("prices.csv")))
total = sum(float(row["price"]) for row in rows)
json.dump({"rows": len(rows), "total": total}, open("summary.json", "w"))
print(f"{len(rows)} rows, {total:.2f} in all")
"""

cluster = Cluster.local() if "--local" in sys.argv else Cluster.auto()
with Sandbox(cluster) as sandbox:
    result = sandbox.run(PROGRAM, files={"prices.csv": "item,price\ntea,3.50\ncake,4.25\n"}, timeout=30)

print("status:  ", result.status)
print("stdout:  ", result.stdout, end="")
print("files:   ", {name: data.decode() for name, data in result.files.items()})
print("finished:", f"{result.timings.finished:.2f} s after the call")

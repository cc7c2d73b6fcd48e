"""Run by .ci/run against the installed wheel, away from the source tree. Not a test module."""

from __future__ import annotations

from pathlib import Path

import gke_sandbox
from gke_sandbox import Cluster, Sandbox

assert Path(gke_sandbox.__file__).is_relative_to(Path(__file__).parent / "venv"), gke_sandbox.__file__
assert Path(gke_sandbox.__file__).with_name("py.typed").is_file()

with Sandbox(Cluster.local()) as sandbox:
    result = sandbox.run(
        "import sys; print(input(), sys.argv[1:]); open('out.txt', 'w').write('made')",
        stdin="typed\n",
        args=["--flag"],
    )
assert result.status == "succeeded", result
assert result.stdout == "typed ['--flag']\n", result.stdout
assert result.files == {"out.txt": b"made"}, result.files
print("smoke: ok,", gke_sandbox.__version__)

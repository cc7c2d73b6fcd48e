"""A smoke test of the installed wheel, run by .ci/run outside of the source tree. Not a test module."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory

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
with TemporaryDirectory() as directory:
    cassette = Path(directory, "smoke.yaml")
    for cluster in (Cluster.record(cassette, Cluster.local()), Cluster.replay(cassette)):
        with Sandbox(cluster) as sandbox:
            assert sandbox.run("print(6 * 7)").stdout == "42\n"
(plugin,) = (each for each in entry_points(group="pytest11") if each.name == "gke_sandbox")
assert plugin.value == "gke_sandbox.pytest_plugin", plugin
print("smoke: ok,", gke_sandbox.__version__)

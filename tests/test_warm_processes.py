"""A Sandbox with warm pods: Ctrl-C, interpreter exit, garbage collection and fork. Tests start new processes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .http_cluster import HttpCluster, http_cluster
from .test_sync import emptied, output, process

pytestmark = pytest.mark.slow

PRELUDE = """
def ready(sandbox, count):
    sandbox.namespace  # opens it
    pool = sandbox._loop_thread.sandbox._opened().pool
    while pool.ready < count:
        time.sleep(0.01)
sandbox = Sandbox(Cluster.kubeconfig(CONFIG), warm=2)
"""


def with_pods(cluster: HttpCluster, directory: Path, code: str) -> str:
    """Return `code` after the opening of a Sandbox with warm pods on `cluster`."""
    return f"CONFIG = {cluster.kubeconfig(directory)!r}\n{PRELUDE}\n{code}"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "ready(sandbox, 1)",
        "ready(sandbox, 2)",
        "ready(sandbox, 2); print(sandbox.run('print(1)').start)",
        "ready(sandbox, 2); del sandbox",
        "ready(sandbox, 2); sandbox.stream(SLEEPS).__next__()",
    ],
)
def test_interpreter_exit_without_close_deletes_the_pods(code: str, tmp_path: Path) -> None:
    with http_cluster() as cluster:
        output(with_pods(cluster, tmp_path, code))
        assert emptied(cluster)


def test_a_sandbox_that_is_dropped_deletes_its_pods(tmp_path: Path) -> None:
    code = """
ready(sandbox, 2)
thread = sandbox._loop_thread._thread
del sandbox
thread.join(20)
print(thread.is_alive())
os._exit(0)
"""
    with http_cluster() as cluster:
        assert output(with_pods(cluster, tmp_path, code)) == "False\n"
        assert emptied(cluster)


def test_a_forked_child_leaves_the_pods_to_its_parent(tmp_path: Path) -> None:
    code = """
ready(sandbox, 2)
before = set(sandbox._loop_thread.sandbox.jobs)
pid = os.fork()
if pid == 0:
    ready(sandbox, 2)
    assert before.isdisjoint(sandbox._loop_thread.sandbox.jobs)
    print("child", sandbox.run("print(1)").start, flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
result = sandbox.run("print(2)")
print("parent", result.start, result.job in before)
sandbox.close()
print(sandbox.leftovers)
"""
    with http_cluster() as cluster:
        assert output(with_pods(cluster, tmp_path, code)) == "child warm\nparent warm True\n[]\n"
        assert emptied(cluster)


def test_ctrl_c_during_a_warm_run_deletes_its_job_and_leaves_the_pool(tmp_path: Path) -> None:
    code = """
ready(sandbox, 2)
before = set(sandbox._loop_thread.sandbox.jobs)
def interrupt():
    while "running" not in seen:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
seen = []
threading.Thread(target=interrupt, daemon=True).start()
try:
    for event in sandbox.stream(SLEEPS):
        if isinstance(event, OutputChunk):
            seen.append("running")
except KeyboardInterrupt:
    print("interrupted", flush=True)
ready(sandbox, 2)
while len(before & set(sandbox._loop_thread.sandbox.jobs)) > 1:
    time.sleep(0.01)  # until the Job of the run is deleted
print(sandbox.run("print(1)").start)
sandbox.close()
"""
    with http_cluster() as cluster:
        assert output(with_pods(cluster, tmp_path, code)) == "interrupted\nwarm\n"
        assert emptied(cluster)


def test_ctrl_c_while_pods_wait_closes_the_sandbox(tmp_path: Path) -> None:
    code = """
with sandbox:
    ready(sandbox, 2)
    print("ready", flush=True)
    time.sleep(60)
"""
    with http_cluster() as cluster:
        running = process(with_pods(cluster, tmp_path, code))
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=30)
        assert error.rstrip().endswith("KeyboardInterrupt")
        assert emptied(cluster)

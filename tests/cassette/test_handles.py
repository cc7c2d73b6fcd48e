"""`Cluster.replay` and `Cluster.record` as values: copies share one run."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from gke_sandbox import Cluster, Sandbox, SpecError
from gke_sandbox.cassette.handles import ReplayHandle
from gke_sandbox.cluster import _Record, _Replay
from gke_sandbox.errors import ReplayMismatch
from gke_sandbox.local import LocalTransport, ScriptedRuntime
from tests.pods import out, program


def recording(path: Path) -> Cluster:
    return Cluster.record(path, Cluster.transport(LocalTransport(ScriptedRuntime(program(out("x"))))))


def run(cluster: Cluster, code: str) -> None:
    with Sandbox(cluster) as sandbox:
        sandbox.run(code)


@pytest.mark.parametrize("path", [None, 5, b"c.yaml", "", "a\0b"])
@pytest.mark.parametrize("make", [Cluster.record, Cluster.replay])
def test_a_path_that_is_not_usable_is_refused_at_once(make: Callable[..., Cluster], path: object) -> None:
    with pytest.raises(SpecError, match="path: must be the path of a cassette, got"):
        make(path)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [(Cluster.record, {"scenario": 5}), (Cluster.record, {"notes": 5}), (Cluster.replay, {"scenario": 5})],
)
def test_a_header_that_cannot_be_read_again_is_refused(
    make: Callable[..., Cluster], arguments: dict[str, int]
) -> None:
    with pytest.raises(SpecError, match=r"must be text \(str\), got 5"):
        make("c.yaml", **arguments)
    with pytest.raises(SpecError, match="lone surrogate"):
        make("c.yaml", **dict.fromkeys(arguments, "\ud800"))


def test_a_deep_copy_is_part_of_the_same_recording(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    original = recording(path)
    copied = copy.deepcopy(original)
    run(original, "print(1)")
    run(copied, "print(2)")
    text = path.read_text()
    assert "print(1)" in text
    assert "print(2)" in text


def test_discarding_a_recording_discards_its_deep_copies(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    original = recording(path)
    copied = copy.deepcopy(original)
    with Sandbox(copied) as sandbox:
        sandbox.run("print(1)")
        assert isinstance(original, _Record)
        original.cassette.discard()
    assert not path.exists()


def test_a_deep_copy_continues_a_shared_replay(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    run(recording(path), "print(1)")
    replaying = ReplayHandle(str(path), shared=True)
    original = _Replay(replaying)
    run(copy.deepcopy(original), "print(1)")
    assert replaying.used
    replaying.load().finish()
    with pytest.raises(ReplayMismatch):
        run(original, "print(1)")


def test_unpickling_starts_a_new_replay(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    run(recording(path), "print(1)")
    original = _Replay(ReplayHandle(str(path), shared=True))
    run(original, "print(1)")
    run(pickle.loads(pickle.dumps(original)), "print(1)")

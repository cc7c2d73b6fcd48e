"""Output files are written below the directory, and nothing else is changed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gke_sandbox._wire.dropped import DroppedFile, DroppedOutput
from gke_sandbox.cli.output_dir import OutputDirectory

from .fake import Step, command, finished, out


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").write_text("untouched")
    return tmp_path


def write(base: Path, files: dict[str, bytes]) -> list[str]:
    with OutputDirectory(str(base / "out")) as directory:
        paths, errors = directory.write(files)
    assert len(paths) + len(errors) == len(files)
    assert (base / "outside").read_text() == "untouched"
    return errors


def everything(base: Path) -> list[str]:
    return sorted(str(path.relative_to(base / "out")) for path in (base / "out").rglob("*"))


def test_files_are_written_with_their_directories(base: Path) -> None:
    assert write(base, {"a": b"1", "b/c/d": b"2", "b/e": b"\xff"}) == []
    assert everything(base) == ["a", "b", "b/c", "b/c/d", "b/e"]
    assert (base / "out/b/c/d").read_bytes() == b"2"


def test_the_directory_is_created(base: Path) -> None:
    with OutputDirectory(str(base / "new/below")) as directory:
        directory.write({"a": b"1"})
    assert (base / "new/below/a").read_bytes() == b"1"


def test_a_regular_file_is_replaced_atomically(base: Path) -> None:
    (base / "out/a").write_text("old and longer")
    os.link(base / "out/a", base / "hard")
    with (base / "out/a").open() as opened:
        assert write(base, {"a": b"new"}) == []
        assert opened.read() == "old and longer"
    assert (base / "out/a").read_bytes() == b"new"
    assert (base / "hard").read_text() == "old and longer"


@pytest.mark.parametrize("target", ["../outside", "/etc/hostname", "nowhere"])
def test_a_symbolic_link_is_neither_followed_nor_replaced(base: Path, target: str) -> None:
    (base / "out/a").symlink_to(target)
    (error,) = write(base, {"a": b"new"})
    assert "out/a': the path exists and is not a regular file" in error
    assert os.readlink(base / "out/a") == target


def test_a_symbolic_link_to_a_directory_is_not_followed(base: Path) -> None:
    (base / "elsewhere").mkdir()
    (base / "out/sub").symlink_to("../elsewhere")
    (error,) = write(base, {"sub/a": b"new"})
    assert "symbolic link, which is not followed" in error
    assert list((base / "elsewhere").iterdir()) == []


def test_the_output_directory_itself_may_be_a_symbolic_link(base: Path) -> None:
    (base / "link").symlink_to("out")
    with OutputDirectory(str(base / "link")) as directory:
        assert directory.write({"a": b"1"})[1] == []
    assert everything(base) == ["a"]


def test_a_fifo_and_a_directory_are_not_replaced(base: Path) -> None:
    os.mkfifo(base / "out/fifo")
    (base / "out/dir").mkdir()
    assert len(write(base, {"fifo": b"1", "dir": b"2"})) == 2
    assert stat.S_ISFIFO((base / "out/fifo").stat().st_mode)


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/absolute", "a/../../outside", "", "nul\0", "..", "\x1b[31m", "fdp\u202e.exe"]
)
def test_a_name_outside_the_directory_is_refused(base: Path, name: str) -> None:
    assert len(write(base, {name: b"new"})) == 1
    assert everything(base) == []


def test_one_file_that_cannot_be_written_does_not_prevent_the_others(base: Path) -> None:
    assert len(write(base, {"a": b"1", "a/b": b"2", "c": b"3"})) == 1
    assert everything(base) == ["a", "c"]


def test_the_command_writes_output_files_and_keeps_the_exit_code_of_the_program(base: Path) -> None:
    done = command([finished("failed", 3, files={"a": b"1"})], "-c", "x", "--output-dir", str(base / "out"))
    assert done.status == 3
    assert everything(base) == ["a"]


def test_files_that_cannot_be_written_make_the_command_fail_after_passing_on_the_output(
    base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = dict.fromkeys(("a", "b", "c", "d", "e", "good"), b"1")
    for name in ("a", "b", "c", "d", "e"):
        (base / "out" / name).mkdir()
    done = command([out(b"printed\n"), finished(files=files)], "-c", "x", "--output-dir", str(base / "out"))
    stdout, stderr = capfd.readouterr()
    assert (done.status, stdout) == (125, "printed\n")
    assert stderr.startswith("gke-sandbox: error: ")
    assert stderr.endswith("; and 2 more\n")
    assert (base / "out/good").read_bytes() == b"1"


def test_dropped_files_make_the_command_fail_like_files_that_cannot_be_written(
    base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (base / "out/a").mkdir()
    dropped = DroppedOutput(files=1, named_files=(DroppedFile("big", "too_large", 7),))
    text = "dropped 1 output file over the limit on the size of all files (--max-file-bytes): 'big' (7 bytes)"
    steps: list[Step] = [finished("failed", 3, files={"a": b"1", "b": b"2"}, dropped=dropped)]
    assert command(steps, "-c", "x", "--output-dir", str(base / "out")).status == 125
    error = capfd.readouterr().err
    assert error.startswith(f"gke-sandbox: error: {text}; cannot write ")
    assert (base / "out/b").read_bytes() == b"2"
    assert command(steps, "-c", "x", "--json", "--output-dir", str(base / "out")).status == 125
    found = json.loads(capfd.readouterr().out)
    assert found["error"]["message"].startswith(text)
    assert command(steps, "-c", "x").status == 3


def test_json_has_the_paths_of_the_files(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (base / "out/b").mkdir()
    where = str(base / "out")
    done = command([finished(files={"a": b"12", "b": b""})], "-c", "x", "--json", "--output-dir", where)
    found = json.loads(capfd.readouterr().out)
    assert done.status == 125
    assert found["files"] == {"a": {"size": 2, "path": f"{where}/a"}, "b": {"size": 0, "path": None}}
    assert found["status"] == "succeeded"
    assert found["error"]["kind"] == "OutputFiles"


def test_a_file_that_cannot_be_written_completely_leaves_nothing_behind(base: Path) -> None:
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        errors = write(base, {"big": b"x" * 5000, "small": b"y"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert len(errors) == 1
    assert errors[0].endswith("File too large")
    assert everything(base) == ["small"]

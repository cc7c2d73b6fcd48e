"""Cassettes as files: written ones are read unchanged, and invalid ones are errors with their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gke_sandbox import AsyncSandbox
from gke_sandbox.cassette import load, save
from gke_sandbox.cassette.format import check_writable, read, write
from gke_sandbox.cassette.format_yaml import dump, parse
from gke_sandbox.errors import CassetteError

from .kit import record
from .test_replay import one

TEXT = """\
gke_sandbox_cassette: 1
scenario: hello
namespace: default
recorded: {at: '2026-11-23', with: by hand, server: v1.36.2}
steps:
- step: delete
  at: 0
  request: DELETE /apis/batch/v1/namespaces/default/jobs/<job-1>
  status: 200
  json: {kind: Status, details: {name: <job-1>}}
- step: log
  at: 5
  request: GET /api/v1/namespaces/default/pods/<job-1>-x/log?follow=true
  status: 200
  headers: {content-type: text/plain}
  stream:
  - {at: 6, text: "hello\\n"}
  - {at: 9, base64: /wA=}
  ends: client
...
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cassettes") / "one.yaml"
    record(path, one)
    return path


def test_a_written_cassette_is_read_unchanged(recorded: Path) -> None:
    cassette = load(recorded)
    assert write(cassette) == recorded.read_text()
    assert [step.line for step in cassette.steps] == sorted(step.line for step in cassette.steps)


def test_a_cassette_that_was_written_by_hand_is_read() -> None:
    cassette = read(TEXT)
    assert cassette.header.server == "v1.36.2"
    assert [(step.name, step.job, step.line) for step in cassette.steps] == [
        ("delete", "<job-1>", 6),
        ("log", "<job-1>", 11),
    ]
    chunks = cassette.steps[1].response.chunks
    assert chunks is not None
    assert [chunk.data for chunk in chunks] == [b"hello\n", b"\xff\x00"]


def test_a_file_is_replaced_atomically_and_readable_for_others(recorded: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "c.yaml"
    save(load(recorded), target)
    target.write_text("old")
    save(load(recorded), target)
    assert target.read_text() == recorded.read_text()
    assert os.listdir(target.parent) == ["c.yaml"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o077 == 0o077 & 0o666 & ~_umask()


def test_a_file_may_have_the_longest_name_of_the_file_system(recorded: Path, tmp_path: Path) -> None:
    longest = tmp_path / f"{'c' * 250}.yaml"
    save(load(recorded), longest)
    assert load(longest).steps == load(recorded).steps


def test_a_symbolic_link_stays_and_its_target_is_replaced(recorded: Path, tmp_path: Path) -> None:
    link, target = tmp_path / "c.yaml", tmp_path / "elsewhere" / "c.yaml"
    link.symlink_to(target)
    save(load(recorded), link)
    assert link.is_symlink()
    assert target.read_text() == recorded.read_text()


def test_a_pipe_or_a_device_is_not_replaced(recorded: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "c.yaml"
    os.mkfifo(pipe)
    for attempt in (lambda: save(load(recorded), pipe), lambda: check_writable(pipe)):
        with pytest.raises(CassetteError, match=r"c\.yaml cannot be written: it is not a regular file"):
            attempt()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["c.yaml"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_file_that_cannot_be_written_is_an_error_and_leaves_no_temporary_file(
    recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CassetteError, match=r"file/c\.yaml cannot be written: "):
        save(load(recorded), tmp_path / "file" / "c.yaml")
    with pytest.raises(CassetteError, match=r"cannot be written: "):
        save(load(recorded), "/dev/full/c.yaml")
    assert os.listdir(tmp_path) == ["file"]


BAD = [
    (TEXT, "", "is not a cassette"),
    (TEXT, "[1, 2]\n...\n", "is not a cassette"),
    (TEXT, "{", "line 2: not YAML"),
    ("...\n", "", "bad.yaml, line 19: cut off"),
    ("\n...\n", "", "bad.yaml, line 19: cut off"),
    (TEXT[TEXT.index("  status: 200") :], "...\n", "line 6, step delete: status: missing"),
    (
        TEXT[TEXT.index("steps:") :],
        "...\n",
        "bad.yaml, line 1, the header: steps: must be a list of steps, got None",
    ),
    ("cassette: 1", "cassette: 2", "bad.yaml, line 1: format 2 is not supported; this release reads up to 1"),
    (
        "cassette: 1",
        "cassette: one",
        "bad.yaml, line 1, the header: gke_sandbox_cassette: must be the version of the format, got 'one'",
    ),
    ("name: <job-1>", "name: <job-3>", "line 6, step delete: <job-3> is never set"),
    ("name: <job-1>", "name: <any>", "line 6, step delete: <any> is only allowed in requests"),
    ("step: log", "step: delete", "line 11, step delete: another step has the same name"),
    ("{at: 6,", "{at: 6, after: [nothing],", "line 17, step log: after: unknown step 'nothing'"),
    ("at: 6", "at: soon", "line 17, step log, stream: at: must be whole milliseconds, got 'soon'"),
    ("base64: /wA=", "base64: '*'", "line 18, step log, stream: invalid base64"),
    (", base64: /wA=", "", "line 18, step log, stream: a chunk needs one of"),
    ("status: 200", "status: 2000", "line 9, step delete: status: must be an HTTP status or null, got 2000"),
    ("DELETE /apis", "/apis", "line 8, step delete: request: must be a method and a path"),
    ("  status", "  statsu", "line 9, step delete: unknown key 'statsu'; did you mean 'status'?"),
    ("scenario: hello", "scenario: [hello]", "bad.yaml, line 2, the header: scenario: must be text"),
    ("with: by hand", "wiht: by hand", "bad.yaml, line 4, the header, recorded: unknown key 'wiht'"),
    (TEXT[TEXT.index("- step: delete") :], "- 1\n...\n", "bad.yaml, line 5, step 1: must be a mapping, got 1"),
    ('- {at: 6, text: "hello\\n"}', "- soon", "line 16, step log, stream: must be a mapping, got 'soon'"),
    ("  at: 5", "  at: 5\n  at: 6", "line 13: duplicate key 'at'"),
    ("ends: client", "ends: ReadEror", "line 19, step log: ends: must be one of server, client, ConnectError"),
    ("  json: {", "  text: x\n  json: {", "line 11, step delete: 'text' and 'json' cannot be combined"),
    (
        "  ends: client",
        "  base64: /wA=\n  ends: client",
        "line 19, step log: 'stream' and 'base64' cannot be combined",
    ),
    ("base64: /wA=", "base64: /wA=, text: x", "line 18, step log, stream: a chunk needs one of event, text"),
    (
        "base64: /wA=",
        "base64: /wA=, object: {}",
        "line 18, step log, stream: 'object' is only allowed together with 'event'",
    ),
    (
        "base64: /wA=",
        "base64: /wA=, joined: yes",
        "line 18, step log, stream: joined: must be true or false, got 'yes'",
    ),
    (
        "base64: /wA=",
        "base64: /wA=, cuts: [[6, 1]]",
        "line 18, step log, stream: 'cuts' is only allowed on events",
    ),
    ("at: 5", "at: *five", "alias"),
    ("at: 5", "at: !!python/name:os.system ''", "are not supported"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD, ids=[message for *_, message in BAD])
def test_an_invalid_cassette_is_an_error_with_its_line(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(CassetteError) as caught:
        read(TEXT.replace(old, new), source="bad.yaml")
    assert str(caught.value).startswith("bad.yaml")
    assert message in str(caught.value)


EVENT = """\
gke_sandbox_cassette: 1
steps:
- step: watch
  request: GET /api/v1/pods?watch=true
  status: 200
  stream:
  - at: 9
    joined: false
    cuts: [[6, 1], [7, 20], [7, 20], [8, 34]]
    event: ADDED
    object: {a: 1}
...
"""


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ("[[6, 1]]", ""),
        ("[[6, 35]]", "must be within the 34 bytes of the event, got 35"),
        ("[[6, -5]]", "must be within the 34 bytes of the event, got -5"),
        ("[[6, 0]]", "must be within the 34 bytes of the event, got 0"),
        ("[[6, 1], [7, 99]]", "must be within the 34 bytes of the event, got 99"),
        ("[[6, 9], [7, 2]]", "must be in the order of time and of bytes"),
        ("[[7, 2], [6, 9]]", "must be in the order of time and of bytes"),
        ("[[6, 2.5]]", "must be pairs of milliseconds and bytes"),
        ("[[6]]", "must be pairs of milliseconds and bytes"),
    ],
)
def test_an_event_can_only_be_cut_within_its_line(cuts: str, message: str) -> None:
    read(EVENT)
    text = EVENT.replace("[[6, 1], [7, 20], [7, 20], [8, 34]]", cuts)
    if not message:
        assert read(text).steps[0].response.chunks is not None
        return
    with pytest.raises(CassetteError) as caught:
        read(text, source="bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml, line 9, step watch, stream: cuts: {message}")


def test_a_cassette_for_another_scenario_is_refused() -> None:
    assert read(TEXT, scenario="hello").header.scenario == "hello"
    with pytest.raises(CassetteError, match="x, line 2, the header: scenario: must be 'bye', got 'hello'"):
        read(TEXT, source="x", scenario="bye")


@pytest.mark.parametrize(("first", "levels"), [("x", 40), (f"[{'x' * 50_000}, 1]", 20)], ids=["values", "text"])
def test_a_few_aliases_cannot_expand_to_more_than_can_be_read(first: str, levels: int) -> None:
    lines = [f"    a0: &a0 {first}", *(f"    a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels))]
    text = TEXT.replace("  json: {", "\n".join(["  body:", *lines, "  json: {"]))
    with pytest.raises(CassetteError, match=r"bad\.yaml, line \d+: more than \d+ values, aliases included"):
        read(text, source="bad.yaml")


def test_many_equal_executions_are_written_once_and_read(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> None:
        await sandbox.map(["#" * 50_000] * 8)

    record(tmp_path / "c.yaml", main)
    text = (tmp_path / "c.yaml").read_text()
    assert text.count("#" * 50_000) == 1
    assert len(load(tmp_path / "c.yaml").steps) > 16


def test_a_file_that_is_not_a_cassette_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match=r"none\.yaml does not exist") as caught:
        load(tmp_path / "none.yaml")
    assert "--record" in caught.value.hint
    with pytest.raises(CassetteError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "binary").write_bytes(b"gke_sandbox_cassette: 1\n\xff\xfe\x00")
    with pytest.raises(CassetteError, match="binary, line 2: not a cassette: not UTF-8 text"):
        load(tmp_path / "binary")


def test_an_incomplete_cassette_is_an_error(recorded: Path) -> None:
    text = recorded.read_text()
    for length in range(0, len(text) - 4, max(len(text) // 60, 1)):
        with pytest.raises(CassetteError):
            read(text[:length])


@given(st.binary(max_size=200) | st.text(max_size=300).map(str.encode))
def test_arbitrary_bytes_raise_only_a_cassette_error(data: bytes) -> None:
    with pytest.raises(CassetteError):
        read(data.decode("utf-8", "replace"))


@given(st.data())
def test_a_damaged_line_raises_only_a_cassette_error(data: st.DataObject) -> None:
    lines = TEXT.splitlines(keepends=True)
    number = data.draw(st.integers(0, len(lines) - 2))
    lines[number] = data.draw(st.text(st.characters(codec="ascii"), max_size=20)) + "\n"
    try:
        read("".join(lines))
    except CassetteError as error:
        assert str(error)  # noqa: PT017 - a damaged line may also be valid: a comment, another text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = "yes no null ~ 1 1e3 0x1f 2026-11-23 2026-11-23T10:00:00Z 12:30 = << true True on | > *a &a !t % @ ` ' \""
ODD = ["", "- a", "# no", "a: b", " lead", "trail ", "a\nb", "a\n", "\n", "\n\n", "a \nb", "\ta", "\x1estart 3\n"]
ODD += ["\u2028", "\ufeff", "\x00", "\x7f", "\x85", "\U0001f600"]
TRICKY = st.sampled_from([*WORDS.split(), *ODD])


@example(-(10**32))
@given(JSON | TRICKY | st.lists(TRICKY) | st.dictionaries(TRICKY, TRICKY))
def test_any_json_is_unchanged_after_yaml(value: Any) -> None:
    assert parse(dump(value), "x") == value

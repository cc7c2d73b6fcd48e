"""Programs: what is rejected before any request, and the field in the error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._wire.program import Program
from gke_sandbox.errors import SpecError
from gke_sandbox.settings import Settings
from tests.invalid_values import junk, refused_field

from .runner_driver import Program as RunnerProgram
from .runner_driver import run


def program_refusal(**program: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        Program(**{"code": "", **program})
    return caught.value


def test_text_becomes_utf8() -> None:
    program = Program(code="print('é')", files={"a": "é", "b": bytearray(b"\xff")}, stdin="é")
    assert program.code == "print('é')".encode()
    assert program.files == {"a": "é".encode(), "b": b"\xff"}
    assert program.stdin == "é".encode()


def test_code_and_files_are_read_from_paths(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_bytes(b"print(1)")
    (tmp_path / "data").write_bytes(b"\xff")
    program = Program(code=tmp_path / "script.py", files={"data.bin": tmp_path / "data"})
    assert (program.code, program.files) == (b"print(1)", {"data.bin": b"\xff"})


def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    missing = program_refusal(code=tmp_path / "missing.py")
    assert str(missing) == f"code: cannot read '{tmp_path}/missing.py': No such file or directory"
    directory = program_refusal(files={"a": tmp_path})
    assert str(directory) == f"files['a']: cannot read '{tmp_path}': Is a directory"


def test_an_empty_program_is_valid() -> None:
    assert Program(code="").code == b""
    assert Program(code=b"", stdin=b"").stdin == b""


@pytest.mark.parametrize("field", ["code", "stdin"])
@pytest.mark.parametrize("value", [5, True, ["print()"], "\ud800", object()])
def test_code_and_stdin_are_text_or_bytes(field: str, value: object) -> None:
    assert program_refusal(**{field: value}).field == field


def test_code_must_be_given() -> None:
    assert program_refusal(code=None).field == "code"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "a/../../b",
        "a/../b",
        "a\0b",
        "a\nb",
        "a\\b",
        "a/",
        "C:x",
        "x" * 256,
        "\ud800",
    ],
)
def test_file_names_that_leave_the_directory_are_rejected(name: str) -> None:
    assert program_refusal(files={name: b""}).field.startswith(f"files[{name!r}"[:200])


@pytest.mark.parametrize("name", ["main.py", "./main.py", ".//main.py", "main.py/x", "././main.py"])
def test_a_file_named_main_py_is_rejected(name: str) -> None:
    error = program_refusal(files={name: b""})
    assert error.field == f"files[{name!r}]"
    assert "main.py" in str(error)


def test_other_files_named_main_are_accepted() -> None:
    assert set(Program(code="", files={"a/main.py": "", "Main.py": "", "main.pyx": ""}).files) == {
        "a/main.py",
        "Main.py",
        "main.pyx",
    }


def test_file_names_are_normalized() -> None:
    assert Program(code="", files={"./a//b.txt": "x"}).files == {"a/b.txt": b"x"}


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("a", "./a", "twice"),
        ("a", "a/b", "also the name of a file"),
        ("a/b", "a", "directory"),
        ("a/b/c", "a/b", "directory"),
    ],
)
def test_files_with_conflicting_paths_are_rejected(first: str, second: str, why: str) -> None:
    error = program_refusal(files={first: b"", second: b""})
    assert error.field == f"files[{second!r}]"
    assert why in str(error)


@pytest.mark.parametrize(
    "files", [["a"], "a", None, {5: b""}, {"a": 5}, {"a": None}, {"a": "\ud800"}, {"a": True}]
)
def test_files_are_a_mapping_of_names_to_contents(files: object) -> None:
    assert program_refusal(files=files).field.startswith("files")


def test_the_count_of_files_is_bounded() -> None:
    Program(code="", files={f"f{i}": b"" for i in range(1000)})
    error = program_refusal(files={f"f{i}": b"" for i in range(1001)})
    assert error.field == "files"
    assert "1000" in str(error)


@pytest.mark.parametrize("args", ["-v", b"-v", None, 5, {"a": "b"}])
def test_arguments_are_a_list(args: object) -> None:
    assert program_refusal(args=args).field == "args"


@pytest.mark.parametrize("arg", [5, b"x", None, "a\0b", "\udcff"])
def test_arguments_with_a_nul_are_rejected(arg: object) -> None:
    assert program_refusal(args=["ok", arg]).field == "args[1]"


def test_a_message_never_contains_large_values() -> None:
    assert len(str(program_refusal(files={"x" * 10_000_000: b""}))) < 500


@given(st.sampled_from(["code", "files", "args", "stdin"]), junk)
def test_any_input_is_accepted_or_rejected_with_its_field(field: str, value: object) -> None:
    refused = refused_field(Program, **{"code": "", field: value})
    assert refused is None or refused.startswith(field)


# -- the digest --------------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {"code": "x", "files": {"a": "1", "b": "2"}, "args": ["p", "q"], "stdin": "in"}


def digest(settings: dict[str, Any] | None = None, **changes: Any) -> str:
    return Program(**{**BASE, **changes}).digest(Settings(**(settings or {})))


def test_the_digest_never_changes() -> None:
    """Jobs in clusters and cassettes on disk carry it: a new encoding would need a new annotation."""
    assert digest() == "5d97d4613622d704c887e22dd3ec6c34d690cbc35a4109a210b0f2fa770c9994"


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "y"},
        {"files": {"a": "1"}},
        {"files": {"a": "12", "b": ""}},
        {"files": {"a": "2", "b": "1"}},
        {"files": {"a1": "", "b": "2"}},
        {"args": ["pq"]},
        {"args": ["p", "q", ""]},
        {"args": []},
        {"stdin": None},
        {"stdin": ""},
        {"code": "xin", "stdin": ""},
        {"settings": {"timeout": 3}},
        {"settings": {"max_output_bytes": 1000}},
        {"settings": {"max_file_bytes": 1000}},
        {"settings": {"max_files": 1}},
    ],
    ids=str,
)
def test_the_digest_depends_on_everything_that_the_caller_chose(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"code": b"x"},
        {"files": {"b": "2", "a": "1"}},
        {"settings": {"timeout": 300.0}},
        {"settings": {"delivery": "mount", "image": "python:3.12", "labels": {"a": "b"}}},
    ],
    ids=str,
)
def test_the_digest_ignores_order_and_everything_that_is_not_the_program(changes: dict[str, Any]) -> None:
    assert digest(**changes) == digest({"timeout": 300})


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=4))
def test_equal_digests_are_of_equal_arguments(one: list[str], other: list[str]) -> None:
    assert (digest(args=one) == digest(args=other)) == (one == other)


@pytest.mark.parametrize(
    ("first", "sent"),
    [
        ("# -*- coding: latin-1 -*-\n", "# -*- coding: utf-8 -*-\n"),
        (
            "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n",
            "#!/usr/bin/python\n# vim: set fileencoding=utf-8 :\n",
        ),
        ("\r\n\t# coding:ascii\r\n", "\r\n\t# coding:utf-8\r\n"),
        ("\ufeff# coding=latin-1\n", "\ufeff# coding=utf-8\n"),
        ("# coding: latin-1\n# coding: cp1252\n", "# coding: utf-8\n# coding: cp1252\n"),
        ("# coding: no-such-encoding\n", "# coding: utf-8\n"),
        ("# coding: rot13\n", "# coding: utf-8\n"),
        ("# coding: utf8\n", "# coding: utf8\n"),
        ("x = 1\n# coding: latin-1\n", "x = 1\n# coding: latin-1\n"),
        ("#\n#\n# coding: latin-1\n", "#\n#\n# coding: latin-1\n"),
        ("'# coding: latin-1'\n", "'# coding: latin-1'\n"),
    ],
)
def test_text_that_declares_another_encoding_declares_utf8(first: str, sent: str) -> None:
    rest = "print(len('é'))\n1 / len('é'[1:])\n"
    program = Program(code=first + rest)
    assert program.code == (sent + rest).encode()
    ran = run(RunnerProgram(program.code))
    assert ran.stdout == b"1\n"
    line = len(first.splitlines()) + 2
    assert f"main.py\", line {line}, in <module>\n    1 / len('é'[1:])\n" in ran.stderr.decode()


def test_bytes_and_text_without_other_characters_are_unchanged() -> None:
    latin = "# coding: latin-1\nprint('é')\n".encode("latin-1")
    assert Program(code=latin).code == latin
    assert Program(code="# coding: latin-1\nprint(1)\n").code == b"# coding: latin-1\nprint(1)\n"

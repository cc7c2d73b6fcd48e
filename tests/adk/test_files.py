"""Input files from ADK, and output files as artifacts."""

from __future__ import annotations

import base64

import pytest
from google.adk.code_executors.code_execution_utils import File

from gke_sandbox.adk.files import input_files, mime_type, output_files
from gke_sandbox.errors import SpecError
from tests.adk.kit import QUIET

pytestmark = QUIET


def test_text_is_decoded_as_base64_and_bytes_are_unchanged() -> None:
    data = bytes(range(256))
    encoded = base64.b64encode(data).decode()
    broken_in_lines = base64.encodebytes(data).decode()
    given = [File("a", encoded), File("b", data), File("c", broken_in_lines), File("d", ""), File("e", b"eA==")]
    assert input_files(given) == {"a": data, "b": data, "c": data, "d": b"", "e": b"eA=="}


@pytest.mark.parametrize("content", ["x,y\n1,2\n", "eA=", "\xe9", None, 5])
def test_other_contents_are_refused_with_the_name_of_the_file(content: object) -> None:
    with pytest.raises(SpecError) as caught:
        input_files([File("a.csv", content)])  # type: ignore[arg-type]
    assert caught.value.field == "input_files['a.csv']"


def test_a_file_that_occurs_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="twice"):
        input_files([File("a", b""), File("a", b"")])


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("plot.png", b"", "image/png"),
        ("out/plot.PNG", b"", "image/png"),
        ("plot.svg", b"", "image/svg+xml"),
        ("photo.jpg", b"", "image/jpeg"),
        ("photo.webp", b"", "image/webp"),
        ("table.csv", b"", "text/csv"),
        ("table.parquet", b"", "application/vnd.apache.parquet"),
        ("table.xlsx", b"", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("table.csv.gz", b"", "application/gzip"),
        ("report.pdf", b"", "application/pdf"),
        ("report.md", b"", "text/markdown"),
        ("page.html", b"", "text/html"),
        ("data.json", b"", "application/json"),
        ("lines.jsonl", b"", "application/jsonl"),
        ("config.yaml", b"", "application/yaml"),
        ("all.zip", b"", "application/zip"),
        ("notes", "größer\n".encode(), "text/plain"),
        ("notes.txt", b"\xff", "text/plain"),
        ("notes", b"", "text/plain"),
        ("core", b"\x7fELF\0", "application/octet-stream"),
        ("weights.bin", b"\xff\xfe", "application/octet-stream"),
        ("dir.d/data", b"\xff", "application/octet-stream"),
        ("log.2026", b"a line\n", "text/plain"),
    ],
)
def test_the_mime_type_depends_on_the_suffix_else_on_the_content(name: str, content: bytes, kind: str) -> None:
    assert mime_type(name, content) == kind


def test_contents_are_returned_as_bytes() -> None:
    made = output_files({"out/a.csv": b"x,y\n", "b": b"\xff"})
    assert made == [File("out/a.csv", b"x,y\n", "text/csv"), File("b", b"\xff", "application/octet-stream")]


def test_contents_are_base64_for_older_releases() -> None:
    assert output_files({"b": b"\xff"}, encoded=True) == [File("b", "/w==", "application/octet-stream")]


def test_no_output_file_becomes_an_artifact_of_the_user() -> None:
    files = {"user:a": b"1", "user_a": b"2", "not/user:a": b"3", "user:user:a": b"4"}
    assert [(file.name, file.content) for file in output_files(files)] == [
        ("_user_a", b"1"),
        ("user_a", b"2"),
        ("not/user:a", b"3"),
        ("user_user:a", b"4"),
    ]

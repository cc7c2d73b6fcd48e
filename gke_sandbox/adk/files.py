"""Convert input and output files between ADK and a Sandbox. Pure."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Iterable, Mapping
from functools import cache

from google.adk.code_executors.code_execution_utils import File

from ..errors import SpecError

__all__ = ["input_files", "mime_type", "output_files"]

_USER_PREFIX = "user:"
"""ADK keeps artifacts with this prefix for all sessions of a user. A program must not decide that."""

_OFFICE = "application/vnd.openxmlformats-officedocument"
_ADDITIONAL_TYPES = {
    ".avif": "image/avif",
    ".docx": f"{_OFFICE}.wordprocessingml.document",
    ".geojson": "application/geo+json",
    ".ipynb": "application/x-ipynb+json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pptx": f"{_OFFICE}.presentationml.presentation",
    ".webp": "image/webp",
    ".xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
"""MIME types of common output files that are missing in Python 3.10."""
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


@cache
def _types() -> mimetypes.MimeTypes:
    # The functions of the module also use tables of the machine, so that results differ between machines.
    types = mimetypes.MimeTypes()
    for ending, kind in _ADDITIONAL_TYPES.items():
        types.add_type(kind, ending)
    return types


def input_files(files: Iterable[File]) -> dict[str, bytes]:
    """Return contents by name. Text is base64, as in ADK. Raises `SpecError` with the name of the file."""
    contents: dict[str, bytes] = {}
    for file in files:
        path = f"input_files[{file.name!r}]"
        if file.name in contents:
            raise SpecError(path, "occurs twice")
        contents[file.name] = _content(path, file.content)
    return contents


def _content(path: str, content: object) -> bytes:
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if not isinstance(content, str):
        raise SpecError(path, f"the content must be bytes or base64 text, got {type(content).__name__}")
    try:
        # Encoders insert line breaks. Other characters that are not base64 are errors.
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SpecError(
            path, f"the content is text but not base64: {error}", hint="Pass other contents as bytes."
        ) from None


def output_files(files: Mapping[str, bytes], *, encoded: bool = False) -> list[File]:
    """Return files for ADK, which makes artifacts of them: bytes, or base64 text if `encoded`, and MIME types."""
    taken = set(files)
    made = []
    for name, content in files.items():
        shown = name
        if name.startswith(_USER_PREFIX):
            shown = name.replace(":", "_", 1)
            while shown in taken:
                shown = f"_{shown}"
            taken.add(shown)
        sent = base64.b64encode(content).decode("ascii") if encoded else content
        made.append(File(name=shown, content=sent, mime_type=mime_type(name, content)))
    return made


def mime_type(name: str, content: bytes) -> str:
    """Return the MIME type by the suffix of the name, else by whether the content is UTF-8."""
    guessed, encoding = _types().guess_type(name.rpartition("/")[2].lower())
    if encoding is not None:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    if guessed is not None:
        return guessed
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/octet-stream" if "\0" in text else "text/plain"

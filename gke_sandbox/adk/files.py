"""ADK's files to ours and back. Pure."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Iterable, Mapping
from functools import cache

from google.adk.code_executors.code_execution_utils import File

from ..errors import SpecError

__all__ = ["input_files", "mime_type", "output_files"]

#: ADK saves an artifact of such a name for the user, across sessions. That is not for the program to decide.
_USERS_OWN = "user:"

#: Types of files that programs like to write and that Python 3.10's own table does not have.
_OFFICE = "application/vnd.openxmlformats-officedocument"
_MORE_TYPES = {
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
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


@cache
def _types() -> mimetypes.MimeTypes:
    # The module's own functions know the machine's tables, too, and answer differently from one to the next.
    types = mimetypes.MimeTypes()
    for ending, kind in _MORE_TYPES.items():
        types.add_type(kind, ending)
    return types


def input_files(files: Iterable[File]) -> dict[str, bytes]:
    """Contents by name. A text is base64, as ADK has it. Raises `SpecError` with the file."""
    contents: dict[str, bytes] = {}
    for file in files:
        path = f"input_files[{file.name!r}]"
        if file.name in contents:
            raise SpecError(path, "is there twice")
        contents[file.name] = _content(path, file.content)
    return contents


def _content(path: str, content: object) -> bytes:
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if not isinstance(content, str):
        raise SpecError(path, f"the content must be bytes or base64 text, not {type(content).__name__}")
    try:
        # Encoders break their lines; everything else that is not base64 is a mistake.
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SpecError(
            path, f"the content is a text and not base64: {error}", hint="give other contents as bytes"
        ) from None


def output_files(files: Mapping[str, bytes], *, encoded: bool = False) -> list[File]:
    """The files as ADK makes artifacts of them: bytes, or base64 text if `encoded`, with their MIME types."""
    taken = set(files)
    made = []
    for name, content in files.items():
        shown = name
        if name.startswith(_USERS_OWN):
            shown = name.replace(":", "_", 1)
            while shown in taken:
                shown = f"_{shown}"
            taken.add(shown)
        sent = base64.b64encode(content).decode("ascii") if encoded else content
        made.append(File(name=shown, content=sent, mime_type=mime_type(name, content)))
    return made


def mime_type(name: str, content: bytes) -> str:
    """By the name's ending; else whether it is UTF-8."""
    guessed, packing = _types().guess_type(name.rpartition("/")[2].lower())
    if packing is not None:
        return _PACKED.get(packing, "application/octet-stream")
    if guessed is not None:
        return guessed
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/octet-stream" if "\0" in text else "text/plain"

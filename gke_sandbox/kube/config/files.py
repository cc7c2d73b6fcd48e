"""Read the small files that a configuration names."""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError

__all__ = ["read_file", "read_file_if_there"]

# Far more than any kubeconfig or CA bundle has. It guards against disk images and /dev/zero.
MAX_FILE_BYTES = 4 << 20


def read_file(path: Path, source: str) -> bytes:
    """Return the content of `path`. Raise `ConfigError` that starts with `source` if it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the path.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{source}: cannot read {path}: {reason}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{source}: {path} is larger than {MAX_FILE_BYTES >> 20} MiB")
    return content


def read_file_if_there(path: Path, source: str) -> bytes | None:
    """Return the content of `path`, or None if the file is missing. Raise `ConfigError` as `read_file` does."""
    try:
        return read_file(path, source)
    except ConfigError as error:
        if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return None
        raise

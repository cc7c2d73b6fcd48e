"""Files that came back from a run, written under one directory and nowhere else.

Their names and contents are the program's, and it is not trusted: no symbolic link below the directory is
followed, nothing outside is touched, and what is there is replaced only if it is a regular file, whole or not
at all (written beside it, then renamed). Another process that changes the directory meanwhile cannot lead us
out either: every step is taken from an open directory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Mapping

from .._wire.paths import safe_name
from .parsing import UsageError

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputDirectory:
    """A directory for output files, made when it is missing.

    Its own path may lead through symbolic links: it is the user's. Raises `UsageError` if it cannot be made or
    written to, so that this comes out before the program runs.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            os.makedirs(path, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise UsageError(f"--output-dir: {path!r}: {reason}") from None
        if not os.access(path, os.W_OK | os.X_OK):
            self.close()
            raise UsageError(f"--output-dir: {path!r}: not writable")

    def __enter__(self) -> OutputDirectory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def write(self, files: Mapping[str, bytes]) -> tuple[dict[str, str], list[str]]:
        """Write all that can be written: the paths of those files by name, and what was wrong with the others."""
        paths: dict[str, str] = {}
        problems: list[str] = []
        for name, data in files.items():
            path = os.path.join(self.path, name)
            try:
                self._write_file(safe_name(name), data)
            except (OSError, ValueError) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
                problems.append(f"{path!r} could not be written: {reason}")
            else:
                paths[name] = path
        return paths, problems

    def _write_file(self, name: str, data: bytes) -> None:
        *directories, last = name.split("/")
        with contextlib.ExitStack() as opened:
            parent = self._descriptor
            for directory in directories:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, dir_fd=parent)
                parent = opened.enter_context(_directory(directory, parent))
            _replace(last, data, parent)


@contextlib.contextmanager
def _directory(name: str, parent: int) -> Iterator[int]:
    try:
        descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except NotADirectoryError:  # Linux says the same of a link that O_NOFOLLOW stops at
        raise ValueError(f"{name!r} is not a directory, or is a symbolic link, which is not followed") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(name: str, data: bytes, parent: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(there.st_mode):
            raise ValueError("there is something there that is not a regular file")
    written = f".gke-sandbox-{secrets.token_hex(6)}"
    # O_EXCL: a link of that name, however it came there, is not followed but an error.
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # Replaces the entry itself: a link that was put there meanwhile is replaced, not followed.
        os.rename(written, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(written, dir_fd=parent)
        raise

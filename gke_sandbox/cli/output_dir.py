"""Write output files below one directory, and nowhere else.

Their names and contents come from the untrusted program. Symbolic links below the directory are not followed, and
only regular files are replaced: each is written to a temporary file and renamed, so a failure leaves the old file.
Every step is relative to an open directory, so another process that changes the tree meanwhile cannot redirect a
write to a place outside.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Mapping

from .._wire.paths import safe_output_name
from .input_files import error_reason
from .parsing import UsageError

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputDirectory:
    """A directory for output files. It is created if it does not exist.

    The path of the directory itself may contain symbolic links, because it comes from the user. Raises
    `UsageError` if the directory cannot be created or is not writable, before the program runs.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # If the path is not a directory, the error of open() is clearer.
            with contextlib.suppress(FileExistsError):
                os.makedirs(path)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise UsageError(f"--output-dir: {path!r}: {error_reason(error)}") from None
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
        """Write every file that can be written. Return the paths by name, and the errors of the other files."""
        paths: dict[str, str] = {}
        errors: list[str] = []
        for name, data in files.items():
            path = os.path.join(self.path, name)
            try:
                self._write_file(safe_output_name(name), data)
            except (OSError, ValueError) as error:
                errors.append(f"cannot write {path!r}: {error_reason(error)}")
            else:
                paths[name] = path
        return paths, errors

    def _write_file(self, name: str, data: bytes) -> None:
        *directories, last = name.split("/")
        with contextlib.ExitStack() as opened:
            parent = self._descriptor
            for directory in directories:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, dir_fd=parent)
                parent = opened.enter_context(_open_directory(directory, parent))
            _replace(last, data, parent)


@contextlib.contextmanager
def _open_directory(name: str, parent: int) -> Iterator[int]:
    try:
        descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except NotADirectoryError:  # Linux raises the same error for a link that O_NOFOLLOW refuses.
        raise ValueError(f"{name!r} is not a directory, or is a symbolic link, which is not followed") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(name: str, data: bytes, parent: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        existing = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(existing.st_mode):
            raise ValueError("the path exists and is not a regular file")
    temporary = f".gke-sandbox-{secrets.token_hex(6)}"
    # O_EXCL: fail if the name exists, even as a symbolic link.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # rename() replaces the entry: a symbolic link that was created meanwhile is replaced, not followed.
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise

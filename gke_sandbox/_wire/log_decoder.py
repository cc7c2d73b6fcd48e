"""Decode the log of one container that may be read more than once. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .dropped import MAX_NAMED, DroppedOutput
from .frames import Decoder, Exit, Frame, Limits, Output, OutputFile, Start

_RS = b"\x1e"
# The first bytes of a log identify it when it is opened again.
_HEAD_BYTES = 128


class ReplayableLogDecoder:
    """Decodes a log in chunks and collects its content; each byte counts once.

    Call `reopen` each time the log is opened. The log then starts again from its beginning, and the part that was
    already decoded is skipped if the first bytes are the same (they include the start frame). If they differ, the
    kubelet has rotated the log: its beginning is lost, and everything that follows is new.

    If the first part came from a connection to the container, the log can have more bytes before the first frame:
    what was printed before the connection was opened, and stderr.

    The bytes after the last frame of a read are decoded again, because the kubelet can append a message to it that
    is not in the log (``failed to create fsnotify watcher: too many open files``).
    """

    def __init__(self, limits: Limits) -> None:
        self._decoder = Decoder(limits)
        self._decoded = self._size = 0
        self._head = b""
        self._reopened = False
        # After a reopen: the bytes to skip, the expected first bytes, and those received so far.
        self._skip = 0
        self._expected = b""
        self._held = b""
        self._skip_to_frame = False

        self.start: Start | None = None
        self.exit: Exit | None = None
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.files: dict[str, bytes] = {}
        self.rotated = False
        """Whether the log was rotated between two reads, so that bytes may be missing."""

    @property
    def not_started(self) -> bool:
        """Whether the runner reported that it failed before it started the program."""
        return not self.stdout and self.stderr.startswith(b"gke-sandbox: the program was not started: ")

    @property
    def runner_error(self) -> str:
        """The error of a runner that failed after it started the program, or an empty string."""
        _, _, error = self.stderr.rpartition(b"gke-sandbox: the runner failed: ")
        return error.decode("utf-8", "replace").strip() if len(error) < len(self.stderr) else ""

    @property
    def unframed(self) -> bytes:
        """The bytes outside of frames: see `Decoder.unframed`."""
        return self._decoder.unframed

    @property
    def size(self) -> int:
        """The number of bytes of the log that were read."""
        return self._size

    @property
    def dropped(self) -> DroppedOutput:
        """The output that exceeded the limits, in the pod and in this decoder."""
        here = self._decoder.dropped
        in_pod = self.exit.dropped if self.exit is not None else DroppedOutput()
        return DroppedOutput(
            stdout=in_pod.stdout + here.stdout,
            stderr=in_pod.stderr + here.stderr,
            files=in_pod.files + here.files,
            named_files=(in_pod.named_files + here.named_files)[:MAX_NAMED],
        )

    def reopen(self, *, after_attach: bool = False) -> None:
        """Expect the log from its beginning, for the first time or again.

        `after_attach`: whether what was decoded before came from a connection to the container.
        """
        self._skip = self._decoder.size
        self._expected, self._held = self._head[: self._skip], b""
        self._reopened = True
        self._skip_to_frame = after_attach and bool(self._expected)

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Decode the next bytes of the log; yield the completed frames, each after its content was collected."""
        fresh = self._fresh(chunk)
        self._decoded += len(fresh)
        self._size = max(self._size, self._decoded)
        self._head = (self._head + fresh[:_HEAD_BYTES])[:_HEAD_BYTES]
        for frame in self._decoder.feed(fresh):
            if isinstance(frame, Output):
                (self.stdout if frame.stream == "stdout" else self.stderr).extend(frame.data)
            elif isinstance(frame, OutputFile):
                self.files[frame.name] = frame.data
            elif isinstance(frame, Exit):
                self.exit = frame
            elif self.start is None:
                self.start = frame
            yield frame

    def _fresh(self, chunk: bytes) -> bytes:
        """Return the part of `chunk` that was not decoded before."""
        if self._skip_to_frame:
            chunk = chunk[chunk.find(_RS) :] if _RS in chunk else b""
            self._skip_to_frame = not chunk
        if self._expected:
            self._held += chunk
            if len(self._held) < len(self._expected) and self._expected.startswith(self._held):
                return b""
            same = self._held.startswith(self._expected)
            chunk, self._expected, self._held = self._held, b"", b""
            if not same:
                self.rotated = True
                self._decoder.restart()
                self._skip, self._decoded, self._size, self._head = 0, 0, 0, b""
                self._reopened = False
        if self._reopened:
            self._reopened = False
            self._decoder.rewind()
            self._decoded = self._decoder.size
            self._head = self._head[: self._decoded]
        fresh = chunk[self._skip :]
        self._skip = max(0, self._skip - len(chunk))
        return fresh

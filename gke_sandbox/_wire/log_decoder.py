"""What has been read of one container's log, though it may have been opened more than once. Pure: bytes in."""

from __future__ import annotations

from collections.abc import Iterator

from .frames import Decoder, DroppedOutput, Exit, Frame, Limits, Output, OutputFile, Start

# So much of a log's beginning tells whether it is the same log when it is opened again.
_HEAD_BYTES = 128


class Transcript:
    """Decodes a log as it comes and keeps what it says; each byte counts once.

    Call `opened` each time that the log is opened: it starts again at its beginning then, and what was decoded
    before is passed over, if it begins with the same bytes (its start frame first of all). If it does not, the
    kubelet has rotated it: its beginning is gone, and all that comes is new.
    """

    def __init__(self, limits: Limits) -> None:
        self._decoder = Decoder(limits)
        self._decoded = 0
        self._head = b""
        # While the log is read again: how much to pass over, what it has to begin with, what came of that.
        self._skip = 0
        self._expected = b""
        self._held = b""

        self.start: Start | None = None
        self.exit: Exit | None = None
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.files: dict[str, bytes] = {}
        self.rotated = False
        """The log was rotated in between: bytes may be missing."""

    @property
    def runner_gave_up(self) -> bool:
        """Whether the runner says that it could not run the program."""
        return not self.stdout and self.stderr.startswith(b"gke-sandbox: ")

    @property
    def outside(self) -> bytes:
        """What stood outside frames: see `Decoder.outside`."""
        return self._decoder.outside

    @property
    def size(self) -> int:
        """How many bytes of the log were decoded."""
        return self._decoded

    @property
    def dropped(self) -> DroppedOutput:
        """What was over the caps, in the runner's count and in ours."""
        ours = self._decoder.dropped
        runners = self.exit.dropped if self.exit is not None else DroppedOutput()
        return DroppedOutput(
            stdout=runners.stdout + ours.stdout,
            stderr=runners.stderr + ours.stderr,
            files=runners.files + ours.files,
        )

    def opened(self) -> None:
        """The log is read from its beginning, for the first time or again."""
        self._skip, self._expected, self._held = self._decoded, self._head, b""

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Take the next bytes of the log; iterate over the frames that they complete, each kept as it is told."""
        fresh = self._fresh(chunk)
        self._decoded += len(fresh)
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
        """The part of `chunk` that was not decoded before."""
        if self._expected:
            self._held += chunk
            if len(self._held) < len(self._expected) and self._expected.startswith(self._held):
                return b""
            same = self._held.startswith(self._expected)
            chunk, self._expected, self._held = self._held, b"", b""
            if not same:
                self.rotated = True
                self._decoder.restart()
                self._skip, self._decoded, self._head = 0, 0, b""
        fresh = chunk[self._skip :]
        self._skip = max(0, self._skip - len(chunk))
        return fresh

"""Attached connections with faults: where in the output or input each fault applies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .faults import AttachAction, CutAttach


class FaultsInStream:
    """The faults in one direction of a connection."""

    def __init__(self, faults: Sequence[AttachAction]) -> None:
        self._faults = sorted(faults, key=lambda fault: fault.after)
        self._count = 0

    def split(self, data: bytes) -> Iterator[tuple[bytes, AttachAction | None]]:
        """Yield the data in pieces, each with the fault that follows it or None.

        A fault after the last byte is part of the result; call it without data at the start of the stream.
        """
        while self._faults and self._faults[0].after <= self._count + len(data):
            fault = self._faults.pop(0)
            piece = data[: fault.after - self._count]
            self._count += len(piece)
            data = data[len(piece) :]
            yield piece, fault
        if data:
            self._count += len(data)
            yield data, None


def by_direction(faults: Sequence[AttachAction]) -> tuple[FaultsInStream, FaultsInStream]:
    """Return the faults in the output and those in the input of the container."""
    of_input = [fault for fault in faults if isinstance(fault, CutAttach) and fault.direction == "input"]
    of_output = [fault for fault in faults if fault not in of_input]
    return FaultsInStream(of_output), FaultsInStream(of_input)

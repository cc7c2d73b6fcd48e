"""The limits on a program's output for which there is room on the way to the client. Pure.

The frames of a program lie in its pod's log, on the node's disk. A kubelet rotates logs at 10 MiB by default, and
what was rotated cannot be read, so the runner stops below that. A limit holds for output of any content only if
the log has room for all of it in the longest form: base64 of data that cannot be compressed.

https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from ._checks import check_integer
from .errors import SpecError

MAX_LOG_BYTES = 9 << 20
"""The maximum size of the log on the node's disk, including what the container runtime adds to each line."""

MAX_ATTACHED_LOG_BYTES = 512 << 20
"""The same for delivery ``attach``, which reads the frames from a connection: enough for the largest limits."""

DEFAULTS = {"max_output_bytes": 1 << 20, "max_file_bytes": 4 << 20, "max_files": 100}
"""The defaults of the limits in `Settings`; there is room for them with any delivery."""
_MAX_BYTES = 64 << 20
_MAX_FILES = 10_000
_FILE_ROOM = 256
"""Reserved for the header of a file, whose name has usual length. The runner reserves the same."""
_ROOM = 256 << 10
"""Reserved for the first and the last frame, and for frames that are sent before they are full."""
_MORE_ROOM = 1 << 20
"""Added to a log above `MAX_LOG_BYTES`, for more frames that are sent before they are full."""


def log_bytes(delivery: str) -> int:
    """Return the maximum size of the log for a delivery, in bytes on the node's disk."""
    return MAX_ATTACHED_LOG_BYTES if delivery == "attach" else MAX_LOG_BYTES


def stored_bytes(limits: Mapping[str, int]) -> int:
    """Return the size of a log that contains the output of both streams and all files up to these limits."""
    stream, files = _longest(limits["max_output_bytes"]), _longest(limits["max_file_bytes"])
    return 2 * stream + files + _FILE_ROOM * limits["max_files"] + _ROOM


def log_limit(*, max_output_bytes: int, max_file_bytes: int, max_files: int) -> int:
    """Return the size of the log at which the runner stops. It has room for all output up to these limits."""
    stored = stored_bytes(
        {"max_output_bytes": max_output_bytes, "max_file_bytes": max_file_bytes, "max_files": max_files}
    )
    return MAX_LOG_BYTES if stored <= MAX_LOG_BYTES else stored + _MORE_ROOM


def maximum(name: str, limits: Mapping[str, int], delivery: str) -> int:
    """Return the highest value of the limit `name` for which there is room beside the other limits."""
    values = range(1, (_MAX_FILES if name == "max_files" else _MAX_BYTES) + 1)
    return bisect_right(values, log_bytes(delivery), key=lambda value: stored_bytes({**limits, name: value}))


def check_output_limits(limits: Mapping[str, int], delivery: str) -> None:
    """Raise `SpecError` for a limit that cannot hold. The keys are those of `Settings`."""
    nothing = dict.fromkeys(limits, 0)
    for name, value in limits.items():
        try:
            check_integer(name, value, 0, maximum(name, nothing, delivery))
        except SpecError as error:
            highest = maximum(name, nothing, "attach")
            if type(value) is int and 0 < value <= highest:
                hint = f"With delivery=attach, the maximum is {highest}."
                raise SpecError(name, error.problem, hint=hint, mentions=("delivery",)) from None
            raise
    if stored_bytes(limits) <= log_bytes(delivery):
        return
    # The defaults fit, so at least one of them is higher.
    raised = [name for name, value in limits.items() if value > DEFAULTS[name]]
    others = [name for name in limits if name != raised[0]]
    raise SpecError(
        raised[0],
        f"must be at most {maximum(raised[0], limits, delivery)} with "
        f"{' and '.join(f'{name} {limits[name]}' for name in others)}, got {limits[raised[0]]}",
        hint=f"The pod's log must have room for all output. Lower {' or '.join(others)}, or use delivery=attach.",
        mentions=(raised[0], *others, "delivery"),
    )


def _longest(size: int) -> int:
    # Base64 adds a third; zlib, the headers of frames of 32 KiB and lines of 16 KiB add one percent.
    return size * 4 // 3 + size // 64

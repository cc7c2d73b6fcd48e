"""Run untrusted, model-written Python in gVisor pods on Kubernetes.

::

    from gke_sandbox import Sandbox

    with Sandbox(namespace="agent-sandbox") as sandbox:
        result = sandbox.run("print(6 * 7)", timeout=30)

The public names are loaded at first use: importing the package alone imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._stream import ExecutionStream
    from ._wire.frames import DroppedOutput
    from .cluster import Cluster
    from .errors import (
        AlreadyExists,
        ApiError,
        BadRequest,
        CassetteError,
        ConfigError,
        Conflict,
        Expired,
        Forbidden,
        Invalid,
        NetworkError,
        NotFound,
        PayloadTooLarge,
        ReplayMismatch,
        RequestEntityTooLarge,
        ResultLost,
        SandboxClosed,
        SandboxError,
        ServerError,
        SpecError,
        StartError,
        TooManyRequests,
        Unauthorized,
    )
    from .kube.config.types import ConnectionOverrides
    from .result import (
        ExecutionEvent,
        ExecutionFinished,
        ExecutionResult,
        OutputChunk,
        PhaseChanged,
        PodWaiting,
        Timings,
    )
    from .sandbox import AsyncSandbox
    from .settings import Settings
    from .sync import Sandbox, SyncExecutionStream

_HOMES = {
    "sync": ("SyncExecutionStream", "Sandbox"),
    "cluster": ("Cluster",),
    "errors": (
        "AlreadyExists",
        "ApiError",
        "BadRequest",
        "CassetteError",
        "ConfigError",
        "Conflict",
        "Expired",
        "Forbidden",
        "Invalid",
        "NetworkError",
        "NotFound",
        "PayloadTooLarge",
        "ReplayMismatch",
        "RequestEntityTooLarge",
        "ResultLost",
        "SandboxClosed",
        "SandboxError",
        "ServerError",
        "SpecError",
        "StartError",
        "TooManyRequests",
        "Unauthorized",
    ),
    "kube.config.types": ("ConnectionOverrides",),
    "_wire.frames": ("DroppedOutput",),
    "result": (
        "ExecutionEvent",
        "ExecutionResult",
        "ExecutionFinished",
        "OutputChunk",
        "PhaseChanged",
        "Timings",
        "PodWaiting",
    ),
    "sandbox": ("AsyncSandbox",),
    "settings": ("Settings",),
    "_stream": ("ExecutionStream",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AlreadyExists",
    "ApiError",
    "AsyncSandbox",
    "BadRequest",
    "CassetteError",
    "Cluster",
    "ConfigError",
    "Conflict",
    "ConnectionOverrides",
    "DroppedOutput",
    "ExecutionEvent",
    "ExecutionFinished",
    "ExecutionResult",
    "ExecutionStream",
    "Expired",
    "Forbidden",
    "Invalid",
    "NetworkError",
    "NotFound",
    "OutputChunk",
    "PayloadTooLarge",
    "PhaseChanged",
    "PodWaiting",
    "ReplayMismatch",
    "RequestEntityTooLarge",
    "ResultLost",
    "Sandbox",
    "SandboxClosed",
    "SandboxError",
    "ServerError",
    "Settings",
    "SpecError",
    "StartError",
    "SyncExecutionStream",
    "Timings",
    "TooManyRequests",
    "Unauthorized",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

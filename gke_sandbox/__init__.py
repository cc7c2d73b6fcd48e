"""Run untrusted, model-written Python in gVisor pods on Kubernetes.

::

    from gke_sandbox import Sandbox

    with Sandbox(namespace="agent-sandbox") as sandbox:
        result = sandbox.run("print(6 * 7)", timeout=30)

Importing the package imports no other module: the public names are loaded at first use. Less frequent names are in
`gke_sandbox.errors` (every exception), `settings` and `result`.
"""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # type checkers take this name for true; importing typing would take milliseconds

if TYPE_CHECKING:
    from ._wire.program import Program
    from .cluster import Cluster
    from .errors import ApiError, ConfigError, NetworkError, ResultLost, SandboxError, SpecError, StartError
    from .kube.config.types import ConnectionOverrides
    from .result import (
        ExecutionEvent,
        ExecutionFailed,
        ExecutionFinished,
        ExecutionResult,
        OutputChunk,
        PhaseChanged,
        PodWaiting,
    )
    from .sandbox import AsyncSandbox
    from .sync import Sandbox

_EXPORTS = {
    "_wire.program": ("Program",),
    "cluster": ("Cluster",),
    "errors": ("ApiError", "ConfigError", "NetworkError", "ResultLost", "SandboxError", "SpecError", "StartError"),
    "kube.config.types": ("ConnectionOverrides",),
    "result": (
        "ExecutionEvent",
        "ExecutionFailed",
        "ExecutionFinished",
        "ExecutionResult",
        "OutputChunk",
        "PhaseChanged",
        "PodWaiting",
    ),
    "sandbox": ("AsyncSandbox",),
    "sync": ("Sandbox",),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "ApiError",
    "AsyncSandbox",
    "Cluster",
    "ConfigError",
    "ConnectionOverrides",
    "ExecutionEvent",
    "ExecutionFailed",
    "ExecutionFinished",
    "ExecutionResult",
    "NetworkError",
    "OutputChunk",
    "PhaseChanged",
    "PodWaiting",
    "Program",
    "ResultLost",
    "Sandbox",
    "SandboxError",
    "SpecError",
    "StartError",
    "__version__",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

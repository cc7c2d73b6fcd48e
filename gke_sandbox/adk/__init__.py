"""The code executor for Google's Agent Development Kit (google-adk). Requires ``gke-sandbox[adk]``.

::

    from gke_sandbox.adk import GkeCodeExecutor

    agent = LlmAgent(..., code_executor=GkeCodeExecutor(namespace="agent-sandbox"))

It replaces ``google.adk.code_executors.GkeCodeExecutor``; docs/adk.md lists the differences.
"""

from __future__ import annotations

try:
    from .executor import GkeCodeExecutor
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in ("google", "pydantic", "pydantic_core"):
        raise
    raise ModuleNotFoundError(
        "gke_sandbox.adk requires google-adk: pip install 'gke-sandbox[adk]'", name=error.name
    ) from error

__all__ = ["GkeCodeExecutor"]

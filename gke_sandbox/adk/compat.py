"""What is not the same in all releases of google-adk."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from google.adk.code_executors.code_execution_utils import CodeExecutionResult

__all__ = ["made", "takes_bytes"]

_HAS_EXIT_CODE = any(field.name == "exit_code" for field in dataclasses.fields(CodeExecutionResult))

_FLOWS = ("google.adk.flows.llm_flows.extensions._code_execution", "google.adk.flows.llm_flows._code_execution")


def made(stdout: str, stderr: str, exit_code: int | None, **more: Any) -> CodeExecutionResult:
    """A result, with its exit code where there is such a field: releases before 2.9 have none."""
    if _HAS_EXIT_CODE:
        more["exit_code"] = exit_code
    return CodeExecutionResult(stdout=stdout, stderr=stderr, **more)


def takes_bytes() -> bool:
    """Whether ADK's flow takes an output file's bytes for what they are.

    Releases before 1.18 decode them as base64, whatever they are. A flow that was never imported is not there to
    do it: then somebody else called the executor.
    """
    for name in _FLOWS:
        flow = sys.modules.get(name)
        if flow is not None:
            return hasattr(flow, "get_content_as_bytes")
    return True

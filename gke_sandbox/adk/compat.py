"""Differences between the releases of google-adk."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from google.adk.code_executors import code_execution_utils
from google.adk.code_executors.code_execution_utils import CodeExecutionResult

__all__ = ["DELIMITERS_ARE_PATTERNS", "accepts_bytes", "make_result"]

DELIMITERS_ARE_PATTERNS = hasattr(code_execution_utils, "re")
"""Whether ADK uses the delimiters of code blocks as regular expressions, of which any can end a block.

Newer releases search for the texts, in pairs.
"""

_HAS_EXIT_CODE = any(field.name == "exit_code" for field in dataclasses.fields(CodeExecutionResult))

_FLOWS = ("google.adk.flows.llm_flows.extensions._code_execution", "google.adk.flows.llm_flows._code_execution")


def make_result(stdout: str, stderr: str, exit_code: int | None, **more: Any) -> CodeExecutionResult:
    """Return a result, with the exit code if it has that field: releases before 2.9 do not."""
    if _HAS_EXIT_CODE:
        more["exit_code"] = exit_code
    return CodeExecutionResult(stdout=stdout, stderr=stderr, **more)


def accepts_bytes() -> bool:
    """Whether ADK's flow uses the bytes of an output file unchanged.

    Releases before 1.18 decode them as base64. If no flow was imported, the caller is not ADK's flow.
    """
    for name in _FLOWS:
        flow = sys.modules.get(name)
        if flow is not None:
            return hasattr(flow, "get_content_as_bytes")
    return True

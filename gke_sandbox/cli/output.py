"""Describe the outcome of a run: lines for stderr, or one JSON object. Pure."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from .._diagnosis import cause
from .._diagnosis.dropped_files import describe_dropped_files
from .._diagnosis.limits import memory_hint, memory_limit
from .._diagnosis.tracebacks import missing_module
from .._exit_codes import describe_signal
from .._setting_names import OPTIONS, rename_settings
from ..errors import ApiError, ResultLost, SandboxError, StartError
from ..result import ExecutionResult
from ..settings import Settings

_MAX_NAMES = 10
"""The number of output files that a note names."""


def error_text(result: ExecutionResult, settings: Settings) -> tuple[str, str] | None:
    """Return message and hint for a program that was killed, or None if it ended on its own."""
    if result.status == "timed_out":
        # With the reason Overtime, the client stopped the pod because the runner had not ended the program.
        overtime = result.reason == "Overtime"
        return (
            f"the program was killed at its time limit of {settings.timeout:g} s",
            "The program may have stopped the runner in its pod." if overtime else "Raise --timeout.",
        )
    if result.status == "out_of_memory":
        limit = memory_limit(result.changed_limits, settings.memory_limit)
        return (
            f"the program was killed because it exceeded its memory limit of {limit}",
            rename_settings(memory_hint(result.changed_limits, cause("out_of_memory").hint), OPTIONS),
        )
    if result.status == "killed":
        details = ": ".join(part for part in (result.reason, result.message) if part)
        if not result.cause:
            return (
                f"the program was killed: {details or 'the cluster gives no reason'}",
                "Run the program again if that is safe.",
            )
        known = cause(result.cause)
        message = f"the program was killed: {known.summary}" + (f" ({details})" if details else "")
        return (message, rename_settings(known.hint, OPTIONS))
    return None


def notes(result: ExecutionResult, settings: Settings, *, local: bool) -> list[str]:
    """Return the notes to print for a result, one line each. `local`: whether it is a result of ``--local``."""
    lines = []
    module = missing_module(result.stderr) if result.status == "failed" else None
    if module is not None and local:
        lines.append(
            f"with --local, the program uses the Python of gke-sandbox: install the module {module} there (with "
            "gVisor not as an editable package)"
        )
    elif module is not None:
        lines.append(f"the image {settings.image} must contain the module {module}; --image uses another image")
    if result.status == "signaled" and result.signal is not None:
        text = f"the program was ended by {describe_signal(result.signal)}"
        lines.append(": ".join(part for part in (text, result.message) if part))
    for stream, count in (("stdout", result.dropped.stdout), ("stderr", result.dropped.stderr)):
        if count:
            unit = "byte" if count == 1 else "bytes"
            lines.append(f"dropped {count:,} {unit} of {stream} above the limit (--max-output)")
    if result.output_truncated:
        lines.append("some of the output may be missing: the log ended early")
    return lines


def dropped_files(result: ExecutionResult) -> list[str]:
    """Return a line for each reason why output files were dropped."""
    return [f"dropped {rename_settings(text, OPTIONS)}" for text in describe_dropped_files(result.dropped)]


def unwritten_files(files: Collection[str]) -> str:
    """Return a note about files that are lost because there is no ``--output-dir``."""
    names = sorted(files)
    shown = ", ".join(f"'{name}'" for name in names[:_MAX_NAMES])
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    unit = "output file" if len(names) == 1 else "output files"
    return f"the program wrote {len(names):,} {unit} ({shown}{more}); use --output-dir DIR to get them"


def result_json(result: ExecutionResult, namespace: str, paths: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the JSON object for a result.

    `paths` maps names of files to where they were written. Without it, the object contains the files.
    """
    files: dict[str, dict[str, Any]] = {}
    for name, data in result.files.items():
        files[name] = {"size": len(data)}
        if paths is None:
            files[name]["base64"] = base64.b64encode(data).decode("ascii")
        else:
            files[name]["path"] = paths.get(name)
    return {
        "status": result.status,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "stdout": result.stdout,
        "stdout_base64": _base64_unless_utf8(result.stdout_bytes),
        "stderr": result.stderr,
        "stderr_base64": _base64_unless_utf8(result.stderr_bytes),
        "files": files,
        "dropped": dataclasses.asdict(result.dropped),
        "output_truncated": result.output_truncated,
        "cause": result.cause,
        "reason": result.reason,
        "message": result.message,
        "changed_limits": dict(result.changed_limits),
        "timings": rounded(dataclasses.asdict(result.timings)),
        "namespace": namespace,
        "job": result.job,
        "pod": result.pod,
    }


def rounded(seconds: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the values with four decimal places; None stays None."""
    return {name: None if value is None else round(value, 4) for name, value in seconds.items()}


def _base64_unless_utf8(data: bytes) -> str | None:
    """Return the bytes in base64, or None if they are valid UTF-8, which text represents without loss."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii")
    return None


def error_details(error: SandboxError) -> dict[str, Any]:
    """Return the entries of an error's JSON object besides kind, message and hint."""
    if isinstance(error, ApiError):
        return {"code": error.code, "reason": error.reason}
    if isinstance(error, StartError):
        common = {"cause": error.cause, "reason": error.reason, "may_have_run": error.may_have_run}
        return {**common, "job": error.job, "pod": error.pod}
    if isinstance(error, ResultLost):
        common = {"cause": error.cause, "may_have_run": error.may_have_run}
        return {**common, "job": error.job, "pod": error.pod, "stdout": error.stdout, "stderr": error.stderr}
    return {}

"""What is told of a run's end: lines on stderr, or one JSON object. Pure."""

from __future__ import annotations

import base64
import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

from .._diagnosis import cause
from ..errors import ApiError, ResultLost, SandboxError, StartError
from ..result import ExecutionResult
from ..settings import Settings
from .parsing import in_options


@dataclasses.dataclass(frozen=True)
class Ending:
    """What to say of a run that did not end by the program's own doing."""

    error: str
    hint: str


def ending(result: ExecutionResult, settings: Settings, names: Mapping[str, str]) -> Ending | None:
    """The error to tell; None for a program that ended by itself. `names` are the options of settings."""
    if result.status == "timed_out":
        # It is the client that ended it, if the runner did not.
        overtime = result.reason == "Overtime"
        return Ending(
            f"the program was killed at its time limit of {settings.timeout:g} s",
            "the program may have stopped the runner in its pod" if overtime else "--timeout gives it more",
        )
    if result.status == "out_of_memory":
        words = f"the program was killed for its memory; its limit was {settings.memory_limit}"
        return Ending(words, "--memory gives it more")
    if result.status == "killed":
        said = ": ".join(part for part in (result.reason, result.message) if part)
        if not result.cause:
            words = f"the program was killed: {said or 'the cluster does not say why'}"
            return Ending(words, "run it again if that does no harm")
        why = cause(result.cause)
        words = f"the program was killed: {why.summary}" + (f" ({said})" if said else "")
        return Ending(words, in_options(why.hint, names))
    return None


def notes(result: ExecutionResult) -> list[str]:
    """What else a person should know, one line each."""
    found = []
    if result.status == "signaled" and result.signal is not None:
        found.append(f"the program died of signal {result.signal}{_signal_name(result.signal)}")
    for stream, count in (("stdout", result.dropped.stdout), ("stderr", result.dropped.stderr)):
        if count:
            some = "byte" if count == 1 else "bytes"
            found.append(f"{count:,} {some} of {stream} over the limit {'was' if count == 1 else 'were'} dropped")
    if result.dropped.files:
        found.append(
            f"{result.dropped.files:,} of the files that the program made were over the limits and dropped"
        )
    if result.output_truncated:
        found.append("some of the output may be missing: its log ended early")
    return found


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""


def result_json(result: ExecutionResult, namespace: str, paths: Mapping[str, str] | None) -> dict[str, Any]:
    """The result. `paths` are where its files were written; without it their contents are in here."""
    files: dict[str, dict[str, Any]] = {}
    for name, data in result.files.items():
        files[name] = {"size": len(data)}
        if paths is None:
            files[name]["base64"] = base64.b64encode(data).decode("ascii")
        else:
            files[name]["path"] = paths.get(name)
    timings = dataclasses.asdict(result.timings)
    return {
        "status": result.status,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "stdout": result.stdout,
        "stdout_base64": _unless_text(result.stdout_bytes),
        "stderr": result.stderr,
        "stderr_base64": _unless_text(result.stderr_bytes),
        "files": files,
        "dropped": dataclasses.asdict(result.dropped),
        "output_truncated": result.output_truncated,
        "cause": result.cause,
        "reason": result.reason,
        "message": result.message,
        "timings": {name: None if value is None else round(value, 4) for name, value in timings.items()},
        "namespace": namespace,
        "job": result.job,
        "pod": result.pod,
    }


def _unless_text(data: bytes) -> str | None:
    """The bytes in base64 if they are not UTF-8: the text beside has lost some of them."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode("ascii")
    return None


def error_details(error: SandboxError) -> dict[str, Any]:
    """What an error's JSON says beside kind, message and hint."""
    if isinstance(error, ApiError):
        return {"code": error.code, "reason": error.reason}
    if isinstance(error, StartError):
        said = {"cause": error.cause, "reason": error.reason, "may_have_run": error.may_have_run}
        return {**said, "job": error.job, "pod": error.pod}
    if isinstance(error, ResultLost):
        output = {"stdout": error.stdout, "stderr": error.stderr}
        said = {"cause": error.cause, "may_have_run": error.may_have_run}
        return {**said, "job": error.job, "pod": error.pod, **output}
    return {}

"""Convert results and errors of executions to results for ADK and its model. Pure.

ADK's flow treats a result as a failure if its stderr is not empty. The model then gets only stderr: neither stdout
nor the names of files. Therefore stderr is empty if the program ended with exit code 0, and otherwise contains
everything that is needed to fix the program.
"""

from __future__ import annotations

from google.adk.code_executors.code_execution_utils import CodeExecutionResult

from .._exit_codes import describe_signal, exit_code_of
from .._setting_names import ADK_FIELDS, rename_settings
from ..errors import (
    ApiError,
    CassetteError,
    ConfigError,
    NetworkError,
    ResultLost,
    SandboxClosed,
    SandboxError,
    SpecError,
)
from ..result import ExecutionResult
from ..settings import Settings
from . import skills
from .compat import accepts_bytes, make_result
from .files import output_files

__all__ = ["STDERR_HEADING", "for_operator", "from_error", "from_result"]

STDERR_HEADING = "--- stderr (exit code 0) ---"
_FOR_OPERATOR = "and its code is not the cause: only the operator of the sandbox can fix this."
_LOST_CODE = 1

MAX_STDERR = 16_000
"""Characters of stderr for a model; its last lines contain the end of a traceback."""
MAX_STDOUT = 4_000
"""Characters of stdout within stderr."""
MAX_LINE = 1_000
"""Characters of one line."""


def from_result(
    result: ExecutionResult, settings: Settings, *, show_stderr: bool, hint: str = ""
) -> CodeExecutionResult:
    """Return the result of a program that ran. With `show_stderr` and exit code 0, stderr follows stdout.

    `hint`: what the model can do about a failure.
    """
    files = output_files(result.files, encoded=not accepts_bytes())
    notes = _notes(result)
    if result.ok:
        if result.dropped.stdout or result.output_truncated:
            script = skills.parse_script(result.stdout)
            if script is not None:
                return _from_script(script, result)
        after = notes
        if show_stderr and result.stderr.strip():
            after = [f"{STDERR_HEADING}\n{_tail(result.stderr, MAX_STDERR, 'stderr')}", *notes]
        return make_result(_append(result.stdout, after), "", 0, output_files=files)
    ending = _paragraphs(_ending(result, settings), hint)
    failure = _failure_text(result.stderr, ending, result.stdout)
    return make_result(result.stdout, _paragraphs(*failure, *notes), exit_code_of(result), output_files=files)


def _from_script(script: skills.SkillScript, result: ExecutionResult) -> CodeExecutionResult:
    """Return a failure for a skill's script that google-adk would treat as a success, because it was truncated."""
    if script.exit_code is None:
        ending = "The exit code of the script is unknown, because it was at the end of the truncated output."
    else:
        ending = (
            f"The script ended with exit code {script.exit_code}, but the files that it created are lost, because "
            "they are text at the end of the truncated output."
        )
    failure = _failure_text(f"{result.stderr}{script.stderr}", ending, script.stdout)
    # If stdout of a shell script is not empty, google-adk uses only stdout.
    stdout = "" if script.in_shell else result.stdout
    return make_result(stdout, _paragraphs(*failure, *_notes(result)), _LOST_CODE)


def _failure_text(stderr: str, ending: str, stdout: str) -> list[str]:
    """Return paragraphs: the end of stderr, how the program ended, and the end of stdout."""
    failure = [_tail(stderr, MAX_STDERR, "stderr")] if stderr.strip() else []
    failure.append(ending)
    printed = skills.without_files(stdout)
    if printed.strip():
        failure.append(f"Its output until then:\n{_tail(printed, MAX_STDOUT, 'stdout')}")
    return failure


def for_operator(error: SandboxError) -> bool:
    """Return whether only an operator can fix the cause: the cluster, its credentials, a permission.

    Such an error may contain paths of this machine and addresses, so a model does not get its text.
    """
    origin = error.__cause__ if isinstance(error, ResultLost) else error
    return isinstance(origin, (ApiError, CassetteError, ConfigError, NetworkError))


def from_error(error: SandboxError) -> CodeExecutionResult:
    """Return a result for a program without a result. Its exit code is None."""
    message = _with_field_names(error.message)
    hint = f"Hint: {_with_field_names(error.hint)}" if error.hint else ""
    if isinstance(error, ResultLost):
        ending = _paragraphs(f"It is unknown how the program ended: {message}", hint)
        if for_operator(error):
            ending = f"It is unknown how the program ended, {_FOR_OPERATOR}"
        return make_result(error.stdout, _paragraphs(*_failure_text(error.stderr, ending, error.stdout)), None)
    outcome = "returned no result" if error.may_have_run else "was not run"
    if for_operator(error):
        return make_result("", f"The program {outcome}, {_FOR_OPERATOR}\n", None)
    if isinstance(error, SandboxClosed):
        first = "The program was cancelled" if error.may_have_run else "The code executor cannot run this"
    elif isinstance(error, SpecError):
        first = "The program was not run"
        if error.field.startswith("files"):
            message = f"input_{message}"  # The name of the field in ADK.
    else:
        first = f"The program {outcome}, and its code is not the cause"
    return make_result("", _paragraphs(f"{first}: {message}", hint), None)


def _ending(result: ExecutionResult, settings: Settings) -> str:
    if result.status == "timed_out":
        return f"The program was killed at its time limit of {settings.timeout:g} s (timeout_seconds)."
    if result.status == "out_of_memory":
        from .._diagnosis.limits import memory_limit

        limit = memory_limit(result.changed_limits, f"{settings.memory_limit} (mem_limit)")
        text = f"The program was killed at its memory limit of {limit}."
        return f"{text} Files in its working directory and in /tmp count too."
    if result.status == "killed":
        return _killed(result)
    if result.signal is not None:
        text = f"The program was terminated by {describe_signal(result.signal)}"
        return f"{text}: {result.message}." if result.message else f"{text}."
    text = f"The program ended with exit code {result.exit_code}"
    return text + ("." if result.stderr.strip() else " and wrote nothing to stderr.")


def _killed(result: ExecutionResult) -> str:
    reason = ": ".join(part for part in (result.reason, result.message) if part)
    if not result.cause:
        return f"The program was killed: {reason or 'the reason is unknown'}"
    from .._diagnosis import cause

    found = cause(result.cause)
    text = f"The program was killed: {found.summary}" + (f" ({reason})" if reason else "")
    return f"{text}.\nHint: {_with_field_names(found.hint)}"


def _with_field_names(text: str) -> str:
    return rename_settings(text, ADK_FIELDS)


def _notes(result: ExecutionResult) -> list[str]:
    """Return a note for each kind of output that is missing."""
    notes = []
    for stream, count in (("stdout", result.dropped.stdout), ("stderr", result.dropped.stderr)):
        if count:
            more = "1 more byte of {} was" if count == 1 else f"{count:,} more bytes of {{}} were"
            notes.append(f"[{more.format(stream)} over the limit (max_output_bytes) and dropped]")
    if result.dropped.files:
        from .._diagnosis.dropped_files import describe_dropped_files

        names = {**ADK_FIELDS, "max_files": "max_files in settings"}
        notes += [f"[dropped {rename_settings(text, names)}]" for text in describe_dropped_files(result.dropped)]
    if result.output_truncated:
        notes.append("[some of the output may be missing: its log ended early]")
    return notes


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _append(stdout: str, after: list[str]) -> str:
    """Return stdout unchanged, followed by `after` on separate lines."""
    if not after:
        return stdout
    first = stdout if not stdout or stdout.endswith("\n") else f"{stdout}\n"
    return f"{first}{_paragraphs(*after)}"


def _tail(text: str, limit: int, stream: str) -> str:
    """Return the end of a text, if possible from the start of a line, with long lines shortened."""
    whole = len(text)
    kept = text[-limit:]
    if len(kept) < whole:
        line_end = kept.find("\n")
        if 0 <= line_end < limit // 2:
            kept = kept[line_end + 1 :]
    lines = [_shorten(line) for line in kept.splitlines()]
    if len(kept) < whole:
        lines.insert(0, f"[the last {len(kept):,} of {whole:,} characters of {stream}]")
    return "\n".join(lines)


def _shorten(line: str) -> str:
    if len(line) <= MAX_LINE:
        return line
    half = MAX_LINE // 2
    return f"{line[:half]} [... {len(line) - 2 * half:,} characters ...] {line[-half:]}"

"""What ADK and its model are told of an execution. Pure.

ADK's flow takes a result for a failure if, and only if, there is something in its stderr; the model is then shown
that alone: no stdout, no names of files. So stderr is empty when the program ended with exit code 0, and otherwise
says all that one needs to mend the program.
"""

from __future__ import annotations

import signal

from google.adk.code_executors.code_execution_utils import CodeExecutionResult

from .._setting_names import ADK_FIELDS, rename_settings
from ..errors import ResultLost, SandboxClosed, SandboxError, SpecError, StartError
from ..result import ExecutionResult
from ..settings import Settings
from . import skills
from .compat import made, takes_bytes
from .files import output_files

__all__ = ["STDERR_HEADING", "TIMED_OUT", "of_error", "of_result"]

STDERR_HEADING = "--- stderr (exit code 0) ---"
TIMED_OUT = 124
"""The exit code of a program that was killed at its time limit, as timeout(1) has it."""
_KILLED = 137
_LOST = 1

# Characters, for a model to read. The last lines of a traceback say what went wrong.
_MOST_STDERR = 16_000
_MOST_STDOUT = 4_000
_MOST_OF_A_LINE = 1_000


def of_result(result: ExecutionResult, settings: Settings, *, show_stderr: bool) -> CodeExecutionResult:
    """The result of a program that ran. `show_stderr`: on exit code 0 what it wrote there follows stdout."""
    files = output_files(result.files, encoded=not takes_bytes())
    notes = _notes(result)
    if result.status == "succeeded":
        if result.dropped.stdout or result.output_truncated:
            script = skills.script(result.stdout)
            if script is not None:
                return _of_script(script, result)
        after = notes
        if show_stderr and result.stderr.strip():
            after = [f"{STDERR_HEADING}\n{_tail(result.stderr, _MOST_STDERR, 'it')}", *notes]
        return made(_followed(result.stdout, after), "", 0, output_files=files)
    said = _said(result.stderr, _ending(result, settings), result.stdout)
    return made(result.stdout, _paragraphs(*said, *notes), _exit_code(result), output_files=files)


def _of_script(script: skills.Script, result: ExecutionResult) -> CodeExecutionResult:
    """The result of a skill's script that google-adk would take for a success, since what it looks for is lost."""
    if script.exit_code is None:
        ending = "How the script ended is not known: its output is cut, and its exit code is lost with the rest."
    else:
        ending = (
            f"The script ended with exit code {script.exit_code}, but the files that it made are lost: they come "
            "as text at the end of its output, which is cut."
        )
    said = _said(f"{result.stderr}{script.stderr}", ending, script.stdout)
    # If there is anything in a shell script's stdout, google-adk looks there alone.
    stdout = "" if script.in_shell else result.stdout
    return made(stdout, _paragraphs(*said, *_notes(result)), _LOST)


def _said(stderr: str, ending: str, stdout: str) -> list[str]:
    said = [_tail(stderr, _MOST_STDERR, "stderr")] if stderr.strip() else []
    said.append(ending)
    printed = skills.without_files(stdout)
    if printed.strip():
        said.append(f"What it had printed until then:\n{_tail(printed, _MOST_STDOUT, 'stdout')}")
    return said


def of_error(error: SandboxError) -> CodeExecutionResult:
    """The result of a program that has none. Its exit code is None: nobody knows one."""
    message = _with_field_names(error.message)
    hint = f"Hint: {_with_field_names(error.hint)}" if error.hint else ""
    if isinstance(error, ResultLost):
        ending = _paragraphs(f"How the program ended is not known: {message}", hint)
        return made(error.stdout, _paragraphs(*_said(error.stderr, ending, error.stdout)), None)
    if isinstance(error, SandboxClosed):
        first = "The program was ended" if error.may_have_run else "The code executor cannot run this"
        return made("", _paragraphs(f"{first}: {message}", hint), None)
    if isinstance(error, SpecError):
        if error.field.startswith("files"):
            message = f"input_{message}"  # As ADK calls them.
        return made("", _paragraphs(f"The program was not run: {message}", hint), None)
    if isinstance(error, StartError):
        outcome = "gave no result" if error.may_have_run else "was not run"
        first = f"The program {outcome}, through no fault of its own: {message}"
        return made("", _paragraphs(first, hint), None)
    first = f"The program could not be run, through no fault of its own: {message}"
    return made("", _paragraphs(first, hint), None)


def _exit_code(result: ExecutionResult) -> int:
    """As a shell would give it."""
    if result.status == "timed_out":
        return TIMED_OUT
    if result.status in ("out_of_memory", "killed"):
        return _KILLED
    if result.signal is not None:
        return 128 + result.signal
    return result.exit_code if result.exit_code is not None else 1


def _ending(result: ExecutionResult, settings: Settings) -> str:
    if result.status == "timed_out":
        words = f"The program was killed at its time limit of {settings.timeout:g} s (timeout_seconds)."
    elif result.status == "out_of_memory":
        words = f"The program was killed for its memory: {settings.memory_limit} are its limit (mem_limit)."
    elif result.status == "killed":
        words = _killed(result)
    elif result.signal is not None:
        words = f"The program died of signal {result.signal}{_signal_name(result.signal)}."
    else:
        words = f"The program ended with exit code {result.exit_code}"
        words += "." if result.stderr.strip() else " and wrote nothing to stderr."
    return words


def _killed(result: ExecutionResult) -> str:
    said = ": ".join(part for part in (result.reason, result.message) if part)
    if not result.cause:
        return f"The program was killed: {said or 'nobody says by what'}"
    from .._diagnosis import cause

    why = cause(result.cause)
    words = f"The program was killed: {why.summary}" + (f" ({said})" if said else "")
    return f"{words}.\nHint: {_with_field_names(why.hint)}"


def _with_field_names(text: str) -> str:
    return rename_settings(text, ADK_FIELDS)


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""


def _notes(result: ExecutionResult) -> list[str]:
    """What is not here and should be known."""
    notes = []
    for stream, count in (("stdout", result.dropped.stdout), ("stderr", result.dropped.stderr)):
        if count:
            more = "1 more byte of {} is" if count == 1 else f"{count:,} more bytes of {{}} are"
            notes.append(f"[{more.format(stream)} over the limit (max_output_bytes) and lost]")
    count = result.dropped.files
    if count:
        notes.append(
            f"[{count:,} of the files that it made {'is' if count == 1 else 'are'} lost: over a limit "
            "(max_file_bytes, or max_files in settings), or of a name that is not taken]"
        )
    if result.output_truncated:
        notes.append("[some of the output may be missing: its log ended early]")
    return notes


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _followed(stdout: str, after: list[str]) -> str:
    """stdout as it is, and what follows it on lines of its own: whoever reads lines of it finds them whole."""
    if not after:
        return stdout
    first = stdout if not stdout or stdout.endswith("\n") else f"{stdout}\n"
    return f"{first}{_paragraphs(*after)}"


def _tail(text: str, most: int, what: str) -> str:
    """The end of a text, from a line's beginning where there is one, with very long lines cut short."""
    whole = len(text)
    kept = text[-most:]
    if len(kept) < whole:
        line_end = kept.find("\n")
        if 0 <= line_end < most // 2:
            kept = kept[line_end + 1 :]
    lines = [_short(line) for line in kept.splitlines()]
    if len(kept) < whole:
        lines.insert(0, f"[the last {len(kept):,} of {whole:,} characters of {what}]")
    return "\n".join(lines)


def _short(line: str) -> str:
    if len(line) <= _MOST_OF_A_LINE:
        return line
    half = _MOST_OF_A_LINE // 2
    return f"{line[:half]} [... {len(line) - 2 * half:,} characters ...] {line[-half:]}"

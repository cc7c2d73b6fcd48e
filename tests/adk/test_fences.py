"""The fences around code that models write. google-adk itself extracts the code, and an executor runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionUtils
from google.genai import types

from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.fences import remove_indentation
from tests.adk.kit import QUIET, agent, converse, execute, local

pytestmark = QUIET

LANGUAGES = ["python", "python3", "py", "Python", "Python3", "PYTHON", "ipython", "tool_code"]
CODE = "for number in (6, 7):\n    print(number)"


@pytest.fixture(scope="module")
def executor() -> Iterator[GkeCodeExecutor]:
    with local(timeout_seconds=20) as made:
        yield made


def extracted(text: str) -> str | None:
    """Return the code that google-adk extracts from a response of the model."""
    content = types.Content(role="model", parts=[types.Part(text=text)])
    return CodeExecutionUtils.extract_code_and_truncate_content(content, GkeCodeExecutor().code_block_delimiters)


def indented(text: str, indent: str) -> str:
    return "".join(indent + line for line in text.splitlines(keepends=True))


def fenced(language: str, code: str = CODE) -> str:
    return f"```{language}\n{code}\n```\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_in_a_fence_with_any_name_of_python_is_extracted(language: str) -> None:
    assert extracted(f"Let me see.\n{fenced(language)}Done.\n") == CODE


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("spaces", ["{} ", " {}", " {} "])
def test_code_in_a_fence_with_spaces_around_the_language_is_extracted(language: str, spaces: str) -> None:
    assert extracted(fenced(spaces.format(language))) == CODE


@pytest.mark.parametrize("language", [*LANGUAGES, " python "])
def test_code_with_crlf_line_ends_runs(executor: GkeCodeExecutor, language: str) -> None:
    code = extracted(f"Let me see.\n{fenced(language)}Done.\n".replace("\n", "\r\n"))
    assert code is not None
    assert code.replace("\r", "") == CODE
    assert execute(executor, code).stdout == "6\n7\n"


@pytest.mark.parametrize("indent", [*(" " * width for width in range(1, 9)), "\t"])
@pytest.mark.parametrize("before", ["", "1. Print them:\n\n"])
def test_code_in_an_indented_fence_runs(executor: GkeCodeExecutor, indent: str, before: str) -> None:
    code = extracted(before + indented(fenced("py"), indent) + "\n2. Done.\n")
    assert code == indented(CODE, indent)
    assert execute(executor, code).stdout == "6\n7\n"


def test_an_indented_fence_with_crlf_line_ends_and_spaces_runs(executor: GkeCodeExecutor) -> None:
    code = extracted(f"1. Print:\n{indented(fenced(' python '), '   ')}".replace("\n", "\r\n"))
    assert code is not None
    assert execute(executor, code).stdout == "6\n7\n"


def test_an_agent_runs_the_code_of_an_indented_fence(executor: GkeCodeExecutor) -> None:
    talk = converse(agent(executor, f"1. Print:\n{indented(fenced('python3'), '   ')}", "Done."))
    assert [each.output for each in talk.outcomes] == ["Code execution result:\n6\n7\n\n"]


def test_the_first_of_several_blocks_is_extracted() -> None:
    assert extracted(f"{fenced('py')}Or:\n{fenced('python', 'print(2)')}") == CODE
    assert extracted(f"{indented(fenced('python'), '  ')}Or:\n{fenced('python', 'print(2)')}") == indented(
        CODE, "  "
    )


@pytest.mark.parametrize("language", ["json", "bash", "", "pycon", "pyi", "python-repl"])
def test_a_block_in_another_language_is_not_extracted(language: str) -> None:
    assert extracted(fenced(language)) is None
    assert extracted(fenced(language) + fenced("py", "print(2)")) == "print(2)"


@pytest.mark.parametrize("language", ["python", "py"])
def test_an_indented_fence_within_the_code_does_not_end_it(language: str) -> None:
    code = 'def half(x):\n    """Halve.\n\n    ```python\n    half(4)\n    ```\n    """\n    return x / 2'
    assert extracted(fenced(language, code)) == code


def test_a_fence_that_is_not_closed_at_its_indentation_ends_at_the_margin() -> None:
    assert extracted(f"   ```python\n{CODE}\n```\n") == CODE


def test_code_is_sent_back_to_the_model_as_by_google_adk(executor: GkeCodeExecutor) -> None:
    default = BaseCodeExecutor.model_fields["code_block_delimiters"].default
    assert executor.code_block_delimiters[:2] == default
    talk = converse(agent(executor, fenced("py"), "Done."))
    assert f"```tool_code\n{CODE}\n```" in talk.asked[1]


def test_delimiters_of_the_user_replace_the_default_ones() -> None:
    pairs = [("<run>", "</run>")]
    assert GkeCodeExecutor(code_block_delimiters=pairs).code_block_delimiters == pairs


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("  print(1)\n  print(2)", "print(1)\nprint(2)"),
        ("\n  # two\n  if 1:\n      print(2)\n", "\n# two\nif 1:\n    print(2)\n"),
        ("  x = '''\na\n   b'''", "x = '''\na\n b'''"),
        ("\tprint(1)\r\n\tprint(2)\r", "print(1)\r\nprint(2)\r"),
        ("    # a comment\nif 1:\n    print(2)", "    # a comment\nif 1:\n    print(2)"),
        ("", ""),
        ("  # only a comment", "  # only a comment"),
    ],
)
def test_only_the_indentation_of_the_block_is_removed(code: str, expected: str) -> None:
    assert remove_indentation(code) == expected

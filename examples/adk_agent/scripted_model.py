"""A model that needs no network: it averages the numbers in a question, and its first attempt contains an
error."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.genai import types

CODE = """
```python
numbers = {numbers}
mean = sum(numbers) / len({name})
open("mean.txt", "w").write(f"{{mean:g}}\\n")
print(f"{{len(numbers)}} numbers, mean {{mean:g}}")
```
"""


class ScriptedModel(BaseLlm):
    """Writes code, fixes it after a traceback, and reports its output."""

    async def generate_content_async(
        self,
        llm_request: LlmRequest,
        stream: bool = False,  # noqa: ARG002 - it never streams
    ) -> AsyncGenerator[LlmResponse, None]:
        """Answer the last message."""
        part = types.Part(text=answer([_text(content) for content in llm_request.contents]))
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def answer(messages: list[str]) -> str:
    """Return the next message of a conversation."""
    numbers = _numbers(next((text for text in reversed(messages) if "```" not in text), ""))
    if not messages[-1].startswith("```tool_output"):
        if not numbers:
            return "I can only average numbers: give me some."
        return "I shall compute it." + CODE.format(numbers=numbers, name="nubmers")
    if "NameError" in messages[-1]:
        return "I misspelled a name." + CODE.format(numbers=numbers, name="numbers")
    printed = re.search(r"\d+ numbers, mean (\S+)", messages[-1])
    if printed:
        return f"The mean is {printed[1]}. It is also in mean.txt."
    return f"That did not work:\n{messages[-1]}"


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def _text(content: types.Content) -> str:
    return "".join(part.text or "" for part in content.parts or [])

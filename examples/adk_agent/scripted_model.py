"""A model without a network: it averages the numbers in a question, with a mistake at first, as models do."""

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
    """Writes code, mends it when it is shown a traceback, and tells what it printed."""

    async def generate_content_async(
        self,
        llm_request: LlmRequest,
        stream: bool = False,  # noqa: ARG002 - it answers at once, whatever was asked for
    ) -> AsyncGenerator[LlmResponse, None]:
        """Answer the last message."""
        part = types.Part(text=answer([_text(content) for content in llm_request.contents]))
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def answer(said: list[str]) -> str:
    """What comes next in a conversation."""
    numbers = _numbers(next((text for text in reversed(said) if "```" not in text), ""))
    if not said[-1].startswith("```tool_output"):
        if not numbers:
            return "I can only average numbers: give me some."
        return "I shall compute it." + CODE.format(numbers=numbers, name="nubmers")
    if "NameError" in said[-1]:
        return "A slip of mine." + CODE.format(numbers=numbers, name="numbers")
    printed = re.search(r"\d+ numbers, mean (\S+)", said[-1])
    if printed:
        return f"The mean is {printed[1]}. It is also in mean.txt."
    return f"That did not work:\n{said[-1]}"


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def _text(content: types.Content) -> str:
    return "".join(part.text or "" for part in content.parts or [])

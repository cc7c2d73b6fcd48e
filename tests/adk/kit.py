"""Agents with scripted models, and clusters that run their code and record the requests."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from google.adk.agents import LlmAgent
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult, File
from google.adk.events import Event
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types
from pydantic import PrivateAttr

from gke_sandbox import Cluster
from gke_sandbox._wire.manifests import PROGRAM_ANNOTATION
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.local.faults import Fault, FaultPlan
from gke_sandbox.local.runtimes.process import ProcessRuntime
from gke_sandbox.local.runtimes.scripted import Script, ScriptedRuntime
from gke_sandbox.local.transport import LocalTransport

# Warnings of google-adk and its dependencies are ignored; warnings of this package are errors.
QUIET = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("error:::gke_sandbox")]

APP, USER = "tests", "somebody"


@dataclass
class Agent:
    name: str


@dataclass
class Context:
    """The part of an InvocationContext that the executor reads."""

    agent: Agent | None = field(default_factory=lambda: Agent("coder"))
    invocation_id: str = "e-1234"


def execute(
    executor: GkeCodeExecutor, code: str, *files: File, context: Context | None = None
) -> CodeExecutionResult:
    return executor.execute_code(
        context or Context(),
        CodeExecutionInput(code=code, input_files=list(files)),  # type: ignore[arg-type]
    )


def exit_code(result: CodeExecutionResult) -> int | None:
    """Return the exit code, or None if this google-adk does not have the field: see `HAS_EXIT_CODE`."""
    code: int | None = getattr(result, "exit_code", None)
    return code


def contents(result: CodeExecutionResult) -> dict[str, bytes]:
    """Return the output files as the flow of this google-adk decodes them: older releases decode all as base64."""
    return {
        file.name: base64.b64decode(file.content) if isinstance(file.content, str) else file.content
        for file in result.output_files
    }


ADK = tuple(int(number) for number in version("google-adk").split(".")[:2])
HAS_EXIT_CODE = "exit_code" in CodeExecutionResult.__dataclass_fields__
# Older releases run code on the event loop.
RUNS_IN_THREADS = ADK >= (2, 5)


# -- clusters --------------------------------------------------------------------------------------------------


class Seen(LocalTransport):
    """An embedded cluster that records the objects sent to it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.posted: list[dict[str, Any]] = []
        self.asked = threading.Event()
        """Whether a program has been sent."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.posted.append(json.loads(await request.aread()))
            if self.posted[-1]["kind"] == "ConfigMap":
                self.asked.set()
        return await super().handle_async_request(request)

    def jobs(self) -> list[dict[str, Any]]:
        """Return every Job that was created."""
        return [each for each in self.posted if each["kind"] == "Job"]

    def config_maps(self) -> list[dict[str, Any]]:
        return [each for each in self.posted if each["kind"] == "ConfigMap"]

    def jobs_left(self) -> list[str]:
        """Return the Jobs that were not deleted. Pods and ConfigMaps are garbage-collected later."""
        return [name for name in self.leftovers() if name.startswith("jobs/")]


def job_annotations(job: dict[str, Any]) -> dict[str, str]:
    """Return the annotations of a Job without the digest of its program, which every Job has."""
    found = dict(job["metadata"]["annotations"])
    assert len(found.pop(PROGRAM_ANNOTATION)) == 64
    return found


def seen() -> Seen:
    """Return a cluster whose pods are processes."""
    return Seen(ProcessRuntime())


def scripted(script: Script | Callable[..., Any], *faults: Fault) -> Seen:
    """Return a cluster with scripted pods, without processes."""
    return Seen(ScriptedRuntime(script), faults=FaultPlan(*faults))


def on(transport: LocalTransport, **fields: Any) -> GkeCodeExecutor:
    return GkeCodeExecutor(cluster=Cluster.transport(transport), **fields)


def local(**fields: Any) -> GkeCodeExecutor:
    return GkeCodeExecutor(cluster=Cluster.local("process"), **fields)


# -- models and conversations ----------------------------------------------------------------------------------


def block(code: str) -> str:
    return f"Let me see.\n```python\n{code}\n```\n"


def call(name: str, **args: Any) -> types.Part:
    return types.Part.from_function_call(name=name, args=args)


class ScriptedModel(BaseLlm):
    """Returns its turns in order. `asked` contains the text of each request."""

    model: str = "scripted"
    _turns: list[Any] = PrivateAttr(default_factory=list)
    _asked: list[str] = PrivateAttr(default_factory=list)

    @property
    def asked(self) -> list[str]:
        return self._asked

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        self._asked.append(shown(llm_request.contents))
        turn = self._turns.pop(0)
        if callable(turn):
            turn = turn(llm_request)
        part = turn if isinstance(turn, types.Part) else types.Part(text=turn)
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def shown(contents: Iterable[types.Content]) -> str:
    """Return the contents for a model as one text."""
    texts = []
    for part in (part for content in contents for part in content.parts or []):
        if part.text:
            texts.append(part.text)
        elif part.function_response:
            texts.append(json.dumps(part.function_response.response))
    return "\n".join(texts)


def model(*turns: Any) -> ScriptedModel:
    made = ScriptedModel()
    made._turns = list(turns)
    return made


def agent(executor: GkeCodeExecutor | None, *turns: Any, name: str = "coder", **more: Any) -> LlmAgent:
    return LlmAgent(name=name, model=model(*turns), code_executor=executor, **more)


@dataclass
class Conversation:
    """The events of a conversation."""

    events: list[Event]
    runner: InMemoryRunner
    session: str
    asked: list[str]

    @property
    def last(self) -> str:
        """The last text of the agent."""
        return shown([self.events[-1].content or types.Content()])

    @property
    def outcomes(self) -> list[types.CodeExecutionResult]:
        """The results of the executions, as the flow stores them."""
        parts = [part for event in self.events for part in (event.content and event.content.parts) or []]
        return [part.code_execution_result for part in parts if part.code_execution_result]

    @property
    def responses(self) -> list[dict[str, Any]]:
        """The response of each tool."""
        parts = [part for event in self.events for part in (event.content and event.content.parts) or []]
        return [part.function_response.response or {} for part in parts if part.function_response]

    def artifact(self, name: str) -> types.Part | None:
        service = self.runner.artifact_service
        assert service is not None
        return asyncio.run(
            service.load_artifact(app_name=APP, user_id=USER, session_id=self.session, filename=name)
        )

    def artifacts(self) -> list[str]:
        service = self.runner.artifact_service
        assert service is not None
        return asyncio.run(service.list_artifact_keys(app_name=APP, user_id=USER, session_id=self.session))


async def aconverse(talker: LlmAgent, *parts: types.Part) -> Conversation:
    """Send one message to the agent and return the conversation."""
    runner = InMemoryRunner(agent=talker, app_name=APP)
    session = await runner.session_service.create_session(app_name=APP, user_id=USER)
    message = types.Content(role="user", parts=list(parts) or [types.Part(text="go on")])
    events = [event async for event in runner.run_async(user_id=USER, session_id=session.id, new_message=message)]
    assert isinstance(talker.model, ScriptedModel)
    return Conversation(events, runner, session.id, talker.model.asked)


def converse(talker: LlmAgent, *parts: types.Part) -> Conversation:
    return asyncio.run(aconverse(talker, *parts))

"""An agent that works things out by running Python, each piece of it in a sandbox of its own.

adk run examples/adk_agent
adk web examples

Without an API key a scripted model plays its part (scripted_model.py); with GOOGLE_API_KEY, GEMINI_API_KEY or what
`adk create` writes for Google Cloud it is Gemini. Without AGENT_NAMESPACE the code runs on the embedded cluster,
on this machine; with it, in that namespace of the cluster that kubectl would use, or of the one in which this
program runs.
"""

from __future__ import annotations

import os

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm

from gke_sandbox import Cluster
from gke_sandbox.adk import GkeCodeExecutor

from .scripted_model import ScriptedModel

INSTRUCTION = """
You answer questions by writing and running Python. Put the code into one block that begins with ```python and ends
with ```, and stop there: you are then shown what it printed, or its traceback. Never guess what code can find out.
Each block runs in a fresh sandbox, with the standard library and no network: nothing is left of the block before.
Files that the code writes into its working directory are given to the user.
"""


def executor() -> GkeCodeExecutor:
    """Where the code runs."""
    limits = {"timeout_seconds": 30, "cpu_limit": "1", "mem_limit": "512Mi"}
    namespace = os.environ.get("AGENT_NAMESPACE")
    if namespace:
        return GkeCodeExecutor(namespace=namespace, **limits)
    return GkeCodeExecutor(cluster=Cluster.local(), **limits)


def model() -> str | BaseLlm:
    """Who writes it."""
    keys = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    # The newer name comes first, as google-genai has it.
    older = os.environ.get("GOOGLE_GENAI_USE_VERTEXAI", "")
    on_google_cloud = os.environ.get("GOOGLE_GENAI_USE_ENTERPRISE", older).lower() in ("1", "true")
    if on_google_cloud or any(os.environ.get(key) for key in keys):
        return os.environ.get("AGENT_MODEL", "gemini-2.5-flash")
    return ScriptedModel(model="scripted")


root_agent = LlmAgent(
    name="calculator",
    description="Answers questions by running code.",
    model=model(),
    instruction=INSTRUCTION,
    code_executor=executor(),
)

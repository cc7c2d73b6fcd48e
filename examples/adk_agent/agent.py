"""An agent that computes answers with Python, each code block in a new sandbox.

adk run examples/adk_agent
adk web examples

The model is Gemini if you set GOOGLE_API_KEY, GEMINI_API_KEY or the variables that `adk create` writes for Google
Cloud; otherwise it is a scripted model (scripted_model.py). If you set AGENT_NAMESPACE, the code runs in that
namespace of the pod's own cluster or of the cluster that kubectl uses; otherwise on the embedded cluster on this
machine.
"""

from __future__ import annotations

import os

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm

from gke_sandbox import Cluster
from gke_sandbox.adk import GkeCodeExecutor

from .scripted_model import ScriptedModel

INSTRUCTION = """
You answer questions by writing and running Python. Put the code into one block that starts with ```python and ends
with ```, and stop there: you then receive its output or its traceback. Never guess what code can compute.
Each block runs in a new sandbox with the standard library and no network: no variables or files of earlier blocks
remain. Files that the code writes to its working directory are given to the user.
"""


def executor() -> GkeCodeExecutor:
    """Return the executor, which decides where the code runs."""
    limits = {"timeout_seconds": 30, "cpu_limit": "1", "mem_limit": "512Mi"}
    namespace = os.environ.get("AGENT_NAMESPACE")
    if namespace:
        return GkeCodeExecutor(namespace=namespace, **limits)
    return GkeCodeExecutor(cluster=Cluster.local(), **limits)


def model() -> str | BaseLlm:
    """Return the model that writes the code."""
    keys = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    # The newer name has precedence, as in google-genai.
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

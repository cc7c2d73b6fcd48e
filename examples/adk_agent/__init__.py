"""An agent that works things out by running code: see agent.py."""

from . import agent

__all__ = ["agent"]

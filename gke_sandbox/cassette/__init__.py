"""Record and replay: a file stands for a cluster. docs/replay.md shows how to use it.

`Cluster.recording` and `Cluster.replay` are the way in; the parts are here for tests of other clients.
"""

from __future__ import annotations

from .file import load, save
from .model import Cassette
from .recording import RecordingTransport, Tape
from .replay import Player, ReplayTransport

__all__ = ["Cassette", "Player", "RecordingTransport", "ReplayTransport", "Tape", "load", "save"]

"""Record and replay: a file takes the place of a cluster. docs/replay.md shows how to use it.

Use `Cluster.record` and `Cluster.replay`; the parts are exported for tests of other clients.
"""

from __future__ import annotations

from .format import load, save
from .model import Cassette
from .player import Player
from .recorder import Recorder, RecordingTransport
from .transport import ReplayTransport

__all__ = ["Cassette", "Player", "Recorder", "RecordingTransport", "ReplayTransport", "load", "save"]

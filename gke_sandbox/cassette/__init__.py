"""Record and replay: a file stands for a cluster. docs/replay.md shows how to use it.

`Cluster.record` and `Cluster.replay` are the way in; the parts are here for tests of other clients.
"""

from __future__ import annotations

from .format import load, save
from .model import Cassette
from .player import Player, ReplayTransport
from .recorder import RecordingTransport, Tape

__all__ = ["Cassette", "Player", "RecordingTransport", "ReplayTransport", "Tape", "load", "save"]

"""The values that `Cluster.replay` and `Cluster.record` contain: they make a transport when a Sandbox connects.

Copies share one run, so that copying an agent does not start another. Unpickling starts a new run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from .format import check_writable, load, save_text
from .player import Player
from .recorder import Recorder, RecordingTransport
from .transport import ReplayTransport

__all__ = ["RecordHandle", "ReplayHandle"]


_T = TypeVar("_T")


class _Handle:
    def __copy__(self: _T) -> _T:
        return self

    def __deepcopy__(self: _T, memo: object) -> _T:
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The run is private.
        return {name: None if name.startswith("_") else value for name, value in self.__dict__.items()}


@dataclass
class ReplayHandle(_Handle):
    """A cassette to replay: from its start for each Sandbox, and checked when the Sandbox closes.

    With `shared` all Sandboxes share one replay, and the owner of the handle calls `load().finish()`.
    """

    path: str
    scenario: str | None = None
    strict: bool = False
    timing: bool = False
    shared: bool = False
    _player: Player | None = field(default=None, init=False, repr=False, compare=False)
    used: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether a Sandbox has opened it."""

    def load(self) -> Player:
        """Return the replay. Raises `CassetteError` if the file is not a cassette of the scenario."""
        player = self._player
        if player is None:
            cassette = load(self.path, scenario=self.scenario)
            player = Player(cassette, strict=self.strict, timing=self.timing)
            self._player = player if self.shared else None
        return player

    def open(self) -> tuple[httpx.AsyncBaseTransport, str | None]:
        """Return a transport that replays, and the recorded namespace. Raises `CassetteError`."""
        player = self.load()
        self.used = True
        return ReplayTransport(player, check=not self.shared), player.cassette.header.namespace


@dataclass
class RecordHandle(_Handle):
    """A file to record. All Sandboxes that use it make one recording, written when each of them closes.

    With `deferred` it is not written then: the owner of the handle calls `save`.
    """

    path: str
    scenario: str | None = None
    notes: str = ""
    deferred: bool = False
    _recorder: Recorder | None = field(default=None, init=False, repr=False, compare=False)

    def wrap(self, inner: httpx.AsyncBaseTransport, base: str) -> httpx.AsyncBaseTransport:
        """Return a transport that passes everything on to `inner` and records it; see `RecordingTransport`.

        Raises `CassetteError` if the file cannot be written: better now than after the run.
        """
        if self._recorder is None:
            check_writable(self.path)
            self._recorder = Recorder(self.path, scenario=self.scenario, notes=self.notes, deferred=self.deferred)
        return RecordingTransport(inner, self._recorder, base=base)

    def save(self) -> bool:
        """Write a `deferred` recording. Return False if there is none: no Sandbox was used and closed."""
        text = "" if self._recorder is None else self._recorder.text
        if text:
            save_text(text, self.path)
        return bool(text)

    def discard(self) -> None:
        """Write nothing: the file keeps its previous content."""
        if self._recorder is not None:
            self._recorder.discarded = True

"""ConfigMaps as the kubelet sees them: a fault can hide a new one for a while."""

from __future__ import annotations

import anyio

from ..apiserver.resources import CONFIG_MAPS
from ..cluster import ClusterState
from ..faults import HideConfigMap
from ..notify import Notifier
from ..objects import Json, Key
from ..store import StoreChange


class ConfigMapReader:
    """Reads ConfigMaps, and waits for them."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._hidden_until: dict[Key, float] = {}
        self._waiting: dict[Key, Notifier] = {}

    def on_change(self, change: StoreChange) -> None:
        """Handle a change of a ConfigMap in the store."""
        key = change.key
        if change.type == "ADDED":
            fault = self._cluster.faults.first(HideConfigMap, key)
            if fault is not None:
                self._hidden_until[key] = anyio.current_time() + fault.seconds
                self._cluster.tasks.start_soon(self._show_later, key, fault.seconds)
        elif change.type == "DELETED":
            self._hidden_until.pop(key, None)
        self._notify(key)

    async def _show_later(self, key: Key, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._notify(key)

    def _notify(self, key: Key) -> None:
        if key in self._waiting:
            self._waiting[key].notify()

    def get(self, namespace: str, name: str) -> Json | None:
        """Return the ConfigMap, or None if the kubelet does not see it."""
        key = Key(CONFIG_MAPS.plural, namespace, name)
        if self._hidden_until.get(key, 0.0) > anyio.current_time():
            return None
        return self._cluster.store.get(key)

    async def wait_for(self, namespace: str, name: str, seconds: float) -> None:
        """Wait until the ConfigMap is visible, at most `seconds`."""
        key = Key(CONFIG_MAPS.plural, namespace, name)
        notifier = self._waiting.setdefault(key, Notifier())
        with anyio.move_on_after(seconds):
            while self.get(namespace, name) is None:
                await notifier.wait()
        if not notifier.has_waiters:
            self._waiting.pop(key, None)

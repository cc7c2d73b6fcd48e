"""Credentials from an exec plugin: a program of the kubeconfig, run at need, what it gives shared while it lasts.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from concurrent.futures import Future
from pathlib import PurePath
from threading import Lock, Thread
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import httpx

from ...errors import ConfigError
from .exec_plugin import (
    ClusterInfo,
    ExecConfig,
    ExecCredentials,
    PluginGone,
    PluginRun,
    exec_info,
    is_interactive,
    plugin_program,
    visible,
)
from .static import ClientCertificate

if TYPE_CHECKING:
    from .google import GoogleAuth

__all__ = ["ClusterInfo", "ExecAuth", "ExecConfig", "exec_auth"]

logger = logging.getLogger("gke_sandbox")

GKE_PLUGIN = "gke-gcloud-auth-plugin"
# What the plugin itself asks for with Application Default Credentials. Without the second one, a service account
# is known to the cluster by a number, and role bindings to its e-mail do not hold.
# https://github.com/kubernetes/cloud-provider-gcp/tree/master/cmd/gke-gcloud-auth-plugin
GKE_SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/userinfo.email",
)
GKE_INSTALL = "https://cloud.google.com/kubernetes-engine/docs/how-to/cluster-access-for-kubectl#install_plugin"
# Seconds. One that may ask a person (a browser, a second factor) has longer.
LIMIT = 60.0
INTERACTIVE_LIMIT = 300.0


def exec_auth(
    config: ExecConfig,
    cluster: ClusterInfo,
    *,
    environ: Mapping[str, str],
    is_terminal: Callable[[], bool] = lambda: os.isatty(0),
    stdin_unavailable: str | None = None,
    now: Callable[[], float] = time.time,
    limit: float = LIMIT,
    interactive_limit: float = INTERACTIVE_LIMIT,
) -> ExecAuth:
    """The credentials that the plugin `config` gives for `cluster`. Nothing is run before the first request.

    `environ` is the plugin's environment, to which the config's own is added. `is_terminal` says whether our
    standard input is a terminal; `stdin_unavailable`, a phrase that may be empty, that the plugin may not have it.
    `now` is calendar time. A plugin that takes longer than `limit` seconds is killed with its whole process group;
    one that may ask on the terminal has `interactive_limit`, and is killed alone, since it stands in our group.

    Raises `ConfigError` for an extension that is not JSON.
    """

    def prepare() -> PluginRun:
        interactive = is_interactive(config, is_terminal, stdin_unavailable)
        info = exec_info(config, cluster, interactive=interactive)
        return PluginRun(config, info, interactive, environ, interactive_limit if interactive else limit)

    try:
        cluster_key = json.dumps(cluster.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config.source}: the cluster's extension is not JSON: {error}") from error
    return ExecAuth(config, environ, cluster_key, prepare, now)


class ExecAuth(httpx.Auth):
    """What an exec plugin gives, on every request: a token, and through `client_certificate` a certificate.

    All that have the same plugin and cluster share one set of credentials, from threads and from event loops, and
    the plugin runs once at a time however many requests wait for it. Each of them raises `ConfigError` when it
    fails, or wants a terminal where there is none; the next request tries again. When the last one that waits is
    cancelled, the plugin is killed.

    Credentials serve until they expire, or the server answers 401: then the plugin is run again, if that was not
    done since, and the request is sent again, once.

    Over plain http, and where a request has an Authorization header, nothing is run and nothing is added.
    """

    def __init__(
        self,
        config: ExecConfig,
        environ: Mapping[str, str],
        cluster_key: str,
        prepare: Callable[[], PluginRun],
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._environ = environ
        self._key = (config, cluster_key)
        self._prepare = prepare
        self._now = now

    def __repr__(self) -> str:
        return f"ExecAuth({self._config.command!r})"

    def client_certificate(self) -> ClientCertificate | None:
        """The certificate in the credentials as they are; None without one, and before the first request."""
        current = self._shared.current
        return current.certificate if current is not None else None

    @property
    def expires_at(self) -> float | None:
        """When the credentials as they are end, in seconds since 1970; None if never, or if there are none yet."""
        current = self._shared.current
        return current.expires_at if current is not None else None

    @property
    def _shared(self) -> _Shared:
        # A forked child has none of its parent's threads: what they were doing would never be done there.
        key = (os.getpid(), *self._key)
        return _SHARED.get(key) or _SHARED.setdefault(key, _Shared())

    def _has_no_say(self, request: httpx.Request) -> bool:
        return request.url.scheme != "https" or "Authorization" in request.headers

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._has_no_say(request):
            yield request
            return
        google = self._google()
        if google is not None:
            try:
                yield from google.sync_auth_flow(request)
            except ConfigError as error:
                raise self._no_way_in(error) from error
            return
        used = self._credentials(None)
        _authorize(request, used)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            _authorize(request, self._credentials(used))
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self._has_no_say(request):
            yield request
            return
        google = self._google()
        if google is not None:
            flow = google.async_auth_flow(request)
            try:
                following = await anext(flow)
                while True:
                    response = yield following
                    following = await flow.asend(response)
            except StopAsyncIteration:
                return
            except ConfigError as error:
                raise self._no_way_in(error) from error
            finally:
                await flow.aclose()
        used = await self._credentials_async(None)
        _authorize(request, used)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            _authorize(request, await self._credentials_async(used))
            yield request

    def _credentials(self, refused: ExecCredentials | None) -> ExecCredentials:
        while True:
            found = self._join(refused)
            if isinstance(found, ExecCredentials):
                return found
            try:
                if found.claim():
                    # In this thread: at interpreter exit, no other can be started any more.
                    found.execute()
                return found.outcome()
            except PluginGone:
                continue
            finally:
                found.leave()

    async def _credentials_async(self, refused: ExecCredentials | None) -> ExecCredentials:
        while True:
            found = self._join(refused)
            if isinstance(found, ExecCredentials):
                return found
            try:
                if found.claim():
                    found.start()
                await found.finished()
                return found.outcome()
            except PluginGone:
                continue
            finally:
                found.leave()

    def _join(self, refused: ExecCredentials | None) -> ExecCredentials | _Run:
        """The credentials as they are, or the run to wait for and to leave again."""
        shared = self._shared
        with shared.lock:
            current = shared.current
            if current is not None and current is not refused and not self._expired(current):
                return current
            if shared.run is None:
                shared.run = _Run(shared, self._prepare())
            shared.run.waiting += 1
            return shared.run

    def _expired(self, credentials: ExecCredentials) -> bool:
        # No earlier: a plugin may keep what it gives until then, and would give the same again.
        return credentials.expires_at is not None and self._now() > credentials.expires_at

    def _google(self) -> GoogleAuth | None:
        """What answers for Google's plugin where it is not installed."""
        shared = self._shared
        if shared.google is not None:
            return shared.google
        config = self._config
        if shared.current is not None or PurePath(config.command).name != GKE_PLUGIN:
            return None
        if plugin_program(config, self._environ) is not None:
            return None
        from .google import google_auth

        google = google_auth(GKE_SCOPES, environ=self._environ)
        with shared.lock:
            if shared.google is None:
                shared.google = google
                logger.warning(
                    "%s: %s is not installed; Google's Application Default Credentials are used instead%s",
                    config.source,
                    config.command,
                    f", without its arguments ({visible(' '.join(config.args))})" if config.args else "",
                )
            return shared.google

    def _no_way_in(self, error: ConfigError) -> ConfigError:
        config = self._config
        install = visible(config.install_hint).strip() or GKE_INSTALL
        return ConfigError(
            f"{config.source}: {config.command} is not installed, and Application Default Credentials do not "
            f"serve in its place: {error.message}",
            hint="Either run `gcloud auth application-default login`, or name a service account's key in "
            f"GOOGLE_APPLICATION_CREDENTIALS; or install the plugin: {install}",
        )


def _authorize(request: httpx.Request, credentials: ExecCredentials) -> None:
    if credentials.token:
        request.headers["Authorization"] = f"Bearer {credentials.token}"
    else:
        request.headers.pop("Authorization", None)


class _Shared:
    """What all that have one plugin and one cluster have in common."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.current: ExecCredentials | None = None
        self.run: _Run | None = None
        self.google: GoogleAuth | None = None
        # The tasks of one event loop wait in line, so that one of them at a time needs a socket to be woken by.
        # anyio's older versions know such a variable by its name.
        self.line: anyio.lowlevel.RunVar[anyio.Lock] = anyio.lowlevel.RunVar(f"exec plugin {id(self)}")


_SHARED: dict[tuple[int, ExecConfig, str], _Shared] = {}


class _Run:
    """One run of the plugin, and those who wait for it."""

    def __init__(self, shared: _Shared, plugin: PluginRun) -> None:
        self.waiting = 0
        self._shared = shared
        self._plugin = plugin
        self._claimed = False
        # None: it was given up.
        self._future: Future[ExecCredentials | Exception | None] = Future()

    def claim(self) -> bool:
        """Whether the caller is the one who has to `execute` or `start` it."""
        with self._shared.lock:
            first, self._claimed = not self._claimed, True
            return first

    def start(self) -> None:
        """Execute it in a thread of its own."""
        # Not one of anyio's: the event loop would not end before it.
        thread = Thread(target=self.execute, name=f"exec plugin {self._plugin.config.command}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._end(None)
            raise

    def execute(self) -> None:
        """Run the plugin to its end; what comes of it is the `outcome`."""
        found: ExecCredentials | Exception | None = None
        try:
            found = self._plugin.credentials()
        except ConfigError as error:
            found = error
        except PluginGone:
            found = None
        except Exception as error:
            found = error
            raise
        finally:
            self._end(found)

    def _end(self, found: ExecCredentials | Exception | None) -> None:
        with self._shared.lock:
            if self._shared.run is self:
                self._shared.run = None
                if isinstance(found, ExecCredentials):
                    self._shared.current = found
        self._future.set_result(found)

    def outcome(self) -> ExecCredentials:
        """Wait for the end; the credentials. Raises `ConfigError`, and `PluginGone` if it was given up."""
        found = self._future.result()
        if found is None:
            raise PluginGone
        if isinstance(found, ConfigError):
            # One of its own for each that waits: a traceback is written into it.
            raise ConfigError(found.message, hint=found.hint)
        if isinstance(found, Exception):
            raise found
        return found

    async def finished(self) -> None:
        """Wait for the end without a thread, and without holding up the event loop."""
        try:
            line = self._shared.line.get()
        except LookupError:
            line = anyio.Lock()
            self._shared.line.set(line)
        async with line:
            if self._future.done():
                return
            bell = _Bell()
            try:
                self._future.add_done_callback(bell.ring)
                await anyio.wait_readable(bell.ear)
            finally:
                bell.close()

    def leave(self) -> None:
        """One less waits. Without any, the plugin is killed and the next request runs it anew."""
        with self._shared.lock:
            self.waiting -= 1
            alone = self.waiting == 0 and not self._future.done()
            if alone and self._shared.run is self:
                self._shared.run = None
        if alone:
            self._plugin.give_up()


class _Bell:
    """Rung in any thread, heard in an event loop."""

    def __init__(self) -> None:
        self.ear, self._mouth = socket.socketpair()
        self._lock = Lock()
        self._open = True

    def ring(self, _: object) -> None:
        # The lock: a number of a closed socket may be another's by now.
        with self._lock:
            if self._open:
                self._mouth.send(b"!")

    def close(self) -> None:
        with self._lock:
            self._open = False
            self.ear.close()
            self._mouth.close()

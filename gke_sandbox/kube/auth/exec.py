"""Credentials from an exec plugin: a program that the kubeconfig names, run when credentials are needed.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import shlex
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path, PurePath
from threading import Lock
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from ...errors import ConfigError
from ..config.types import ClusterConfig
from ..config.yaml import parse_kubeconfig_yaml
from ..http.tls import load_certificate
from ..programs import find_program
from ..status import plain
from .google import GoogleAuth, find_credentials
from .google_base import TokenSource
from .refreshing import RefreshingAuth, RefreshState
from .static import ClientCertificate, check_token

__all__ = ["ExecAuth", "ExecConfig", "cluster_info", "exec_auth", "exec_info", "parse_credentials"]

logger = logging.getLogger(__name__)

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
MODES = ("Never", "IfAvailable", "Always")
# Seconds. A plugin that may ask the user (a browser, a second factor) gets more time.
PLUGIN_TIMEOUT = 60.0
INTERACTIVE_TIMEOUT = 300.0
POLL_INTERVAL = 0.01
# A token has a few KB, a certificate with its chain about ten.
MAX_OUTPUT = 1 << 20
GKE_PLUGIN = "gke-gcloud-auth-plugin"
GKE_INSTALL = "https://cloud.google.com/kubernetes-engine/docs/how-to/cluster-access-for-kubectl#install_plugin"


@dataclass(frozen=True, kw_only=True)
class ExecConfig:
    """A user's ``exec`` entry. Raise `ConfigError` for values that client-go refuses."""

    # https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#ExecConfig
    api_version: str
    command: str
    """A name to find on PATH, or a path."""
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""
    """One of `MODES`. The default is IfAvailable for v1beta1; for v1 it is required."""
    source: str = field(default="the exec plugin", compare=False)
    """Where the entry is, for error messages."""

    def __post_init__(self) -> None:
        if not self.command:
            raise ConfigError(f"{self.source} has no command")
        if "\0" in self.command:
            raise ConfigError(f"{self.source}: the command contains a NUL character")
        if not self.api_version:
            raise ConfigError(f"{self.source} has no apiVersion", hint=f"It must be {' or '.join(VERSIONS)}.")
        if self.api_version not in VERSIONS:
            raise ConfigError(
                f"{self.source}: the apiVersion {self.api_version!r} is not supported",
                hint=f"It must be {' or '.join(VERSIONS)}; newer versions of most plugins support these.",
            )
        if any(not name for name, _ in self.env):
            raise ConfigError(f"{self.source}: a variable in env has no name")
        if not self.interactive_mode and self.api_version == VERSIONS[1]:
            object.__setattr__(self, "interactive_mode", "IfAvailable")
        if self.interactive_mode not in MODES:
            mode = f"interactiveMode {self.interactive_mode!r}" if self.interactive_mode else "no interactiveMode"
            raise ConfigError(f"{self.source} has {mode}", hint=f"It must be one of {', '.join(MODES)}.")


@dataclass(frozen=True, eq=False)
class ExecCredentials:
    """The output of a plugin."""

    token: str = field(default="", repr=False)
    certificate: ClientCertificate | None = None
    expires_at: float | None = None
    """Seconds since 1970; None if the credentials do not expire."""


def exec_auth(
    config: ExecConfig, cluster: ClusterConfig, extension: object = None, *, environ: Mapping[str, str]
) -> httpx.Auth:
    """Return the credentials of a plugin for a cluster. The plugin does not run before the first request.

    `extension` is JSON: the cluster's extension ``client.authentication.k8s.io/exec``. The plugin's environment is
    `environ` and the variables of `config`. If Google's plugin is not installed, use Application Default
    Credentials.
    """
    if PurePath(config.command).name == GKE_PLUGIN and _find_plugin(config, environ) is None:
        return _google_auth(config, environ)
    return ExecAuth(config, cluster, extension, environ=environ)


def _google_auth(config: ExecConfig, environ: Mapping[str, str]) -> GoogleAuth:
    logger.warning(
        "%s: %s is not installed; Google's Application Default Credentials are used instead%s",
        config.source,
        config.command,
        f", without its arguments ({plain(' '.join(config.args), 500)})" if config.args else "",
    )

    def find() -> TokenSource:
        install = _install_hint(config) or GKE_INSTALL
        try:
            return find_credentials(environ, extra_hint=f"Or install the plugin: {install}")
        except ConfigError as error:
            raise ConfigError(
                f"{config.source}: {config.command} is not installed; {error.message}", hint=error.hint
            ) from error

    return GoogleAuth(find)


class ExecAuth(RefreshingAuth[ExecCredentials]):
    """Authorize requests with the token that an exec plugin returns; `client_certificate` is its certificate.

    Objects for the same plugin and cluster share their credentials. These are used until they expire, or the
    server answers 401. When no request waits for the plugin any more, it is killed. A request raises `ConfigError`
    if the plugin fails, or if it needs a terminal that is missing; the next request runs the plugin again.

    Over plain http, and if a request has an Authorization header, the plugin does not run and nothing is added.
    """

    def __init__(
        self,
        config: ExecConfig,
        cluster: ClusterConfig,
        extension: object = None,
        *,
        environ: Mapping[str, str],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._environ = environ
        self._cluster = cluster_info(cluster, extension)
        self._key = (config, json.dumps(self._cluster, sort_keys=True))
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"ExecAuth({self._config.command!r})"

    def client_certificate(self) -> ClientCertificate | None:
        """Return the certificate in the current credentials; None without one and before the first request."""
        current = self._state().current
        return current.certificate if current is not None else None

    def _state(self) -> _PluginState:
        # The process ID: a forked child does not have the threads of its parent, which may hold locks.
        key = (os.getpid(), *self._key)
        return _STATES.get(key) or _STATES.setdefault(key, _PluginState())

    def _skip(self, request: httpx.Request) -> bool:
        return request.url.scheme != "https" or "Authorization" in request.headers

    def _authorize(self, request: httpx.Request, credentials: ExecCredentials) -> None:
        request.headers.pop("Authorization", None)
        if credentials.token:
            request.headers["Authorization"] = f"Bearer {credentials.token}"

    def _usable(self, rejected: ExecCredentials | None) -> ExecCredentials | None:
        current = self._state().current
        if current is None or current is rejected:
            return None
        # Not before it expires: a plugin may cache its credentials until then, and would return the same.
        expired = current.expires_at is not None and self._now() > current.expires_at
        return None if expired else current

    def _refresh(self, _rejected: ExecCredentials | None) -> ExecCredentials:
        config, state = self._config, self._state()
        interactive = _is_interactive(config)
        program = _find_plugin(config, self._environ)
        if program is None:
            raise _not_installed_error(config)
        info = exec_info(config, self._cluster, interactive=interactive)
        environ = {**self._environ, **dict(config.env), "KUBERNETES_EXEC_INFO": info}
        with state.mutex:
            if not state.waiting:
                raise PluginCancelled
            run = state.run = _PluginRun(config, program, environ, interactive, state.mutex)
        output, problem = run.communicate(INTERACTIVE_TIMEOUT if interactive else PLUGIN_TIMEOUT, self._clock)
        if problem:
            raise _failed(config, problem)
        try:
            state.current = parse_credentials(output, config.api_version)
        except ConfigError as error:
            raise _failed(config, f"returned no credentials: {error.message}") from error
        return state.current

    def _cancel(self) -> None:
        run = self._state().run
        if run is not None:
            run.cancel()


class _PluginState(RefreshState[ExecCredentials]):
    def __init__(self) -> None:
        super().__init__()
        self.current: ExecCredentials | None = None
        self.run: _PluginRun | None = None


_STATES: dict[tuple[int, ExecConfig, str], _PluginState] = {}


def _is_interactive(config: ExecConfig) -> bool:
    """Return whether the plugin may read our standard input. Raise `ConfigError` if it must, and cannot."""
    terminal = config.interactive_mode != "Never" and os.isatty(0)
    if config.interactive_mode == "Always" and not terminal:
        raise ConfigError(
            f"{config.source}: the plugin {config.command} needs a terminal (interactiveMode Always), but "
            "standard input is not a terminal",
            hint="Run this in a terminal, or use credentials that need no input.",
        )
    return terminal


def cluster_info(cluster: ClusterConfig, extension: object) -> dict[str, Any]:
    """Return the cluster as in KUBERNETES_EXEC_INFO: fields that are set, and `config`, which may be null."""
    # https://kubernetes.io/docs/reference/config-api/client-authentication.v1/#client-authentication-k8s-io-v1-Cluster
    # client-go removes the query only if there is a path.
    has_path = len(urlsplit(cluster.server).path) > 1
    fields = {
        "server": cluster.server.partition("?")[0] if has_path else cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(cluster.ca_data or b"").decode("ascii"),
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
    }
    # client-go writes objects with their keys in order.
    ordered = json.loads(json.dumps(extension, sort_keys=True))
    return {**{key: value for key, value in fields.items() if value}, "config": ordered}


def exec_info(config: ExecConfig, cluster: Mapping[str, Any], *, interactive: bool) -> str:
    """Return the text of KUBERNETES_EXEC_INFO, byte for byte as client-go writes it."""
    spec: dict[str, Any] = {"cluster": cluster} if config.provide_cluster_info else {}
    spec["interactive"] = interactive
    text = _go_json({"kind": "ExecCredential", "apiVersion": config.api_version, "spec": spec})
    # The characters that Go's encoder escapes.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text + "\n"


def _go_json(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_go_json(key)}:{_go_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_go_json, value)) + "]"
    if isinstance(value, float) or (isinstance(value, int) and not -(1 << 63) <= value < 1 << 64):
        return _go_float(float(value))
    return json.dumps(value, ensure_ascii=False)


def _go_float(number: float) -> str:
    """Return a number as Go writes it: without ``.0``, and with an exponent if it is tiny or huge."""
    if number and not 1e-6 <= abs(number) < 1e21:
        return re.sub(r"\.0(?=e)|(?<=e-)0", "", repr(number))
    return format(Decimal(repr(number)), "f").removesuffix(".0")


def _find_plugin(config: ExecConfig, environ: Mapping[str, str]) -> str | None:
    """Return the absolute path of the plugin, or None if it is missing.

    Only a bare name is looked up on PATH. Raise `ConfigError` if it is found through an empty or relative entry.
    """
    command = config.command
    if os.path.dirname(command):
        return str(Path(command).absolute()) if os.path.isfile(command) else None
    try:
        return find_program(
            command, environ.get("PATH", os.defpath), fix="name the plugin by an absolute path in the kubeconfig"
        )
    except ConfigError as error:
        raise ConfigError(f"{config.source}: the exec plugin {error.message}", hint=error.hint) from None


def _install_hint(config: ExecConfig) -> str:
    # It may have several lines, and is shown on a terminal.
    return "\n".join(plain(line, 500) for line in config.install_hint.splitlines()).strip()


def _not_installed_error(config: ExecConfig) -> ConfigError:
    return ConfigError(
        f"{config.source}: the exec plugin {config.command} was not found",
        hint=_install_hint(config) or "Install it, or add its directory to PATH.",
    )


def _failed(config: ExecConfig, problem: str) -> ConfigError:
    return ConfigError(
        f"{config.source}: the exec plugin {config.command} {problem}",
        hint="See its messages on standard error, or run it yourself: "
        + plain(shlex.join([config.command, *config.args]), 500),
    )


class PluginCancelled(Exception):
    """The plugin was killed because no request waits for it."""


class _PluginRun:
    """A running plugin. It shares our standard error and, if it is interactive, our standard input."""

    def __init__(
        self, config: ExecConfig, program: str, environ: Mapping[str, str], interactive: bool, mutex: Lock
    ) -> None:
        self._interactive = interactive
        # Held when the process is killed or reaped: the ID of a reaped process must not be killed.
        self._mutex = mutex
        self._cancelled = False
        try:
            self._process = subprocess.Popen(
                [config.command, *config.args],
                executable=program,
                env=environ,
                stdin=None if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # A plugin that reads from the terminal must stay in the terminal's foreground process group.
                start_new_session=not interactive,
            )
        except FileNotFoundError:
            # The interpreter in the first line of a script may be missing, too.
            raise _not_installed_error(config) from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _failed(config, f"cannot be run: {why}") from error

    def cancel(self) -> None:
        """Kill the plugin; `communicate` raises `PluginCancelled`. The mutex is held."""
        self._cancelled = True
        self._kill()

    def communicate(self, timeout: float, clock: Callable[[], float]) -> tuple[bytes, str]:
        """Return the output of the plugin when it has ended, and a description of its failure, or "".

        Do not wait for other processes that it started, which may hold its standard output open.
        """
        stdout = self._process.stdout
        assert stdout is not None
        with stdout:
            try:
                output, problem = self._read(stdout, timeout, clock)
            finally:
                with self._mutex:
                    self._kill()
                    code = self._process.wait()
        if self._cancelled:
            raise PluginCancelled
        if not problem and code:
            problem = f"exited with code {code}" if code > 0 else f"was killed by signal {-code}"
        return output, problem

    def _read(self, stdout: IO[bytes], timeout: float, clock: Callable[[], float]) -> tuple[bytes, str]:
        os.set_blocking(stdout.fileno(), False)
        output, deadline = bytearray(), clock() + timeout
        while True:
            # Before reading: all output of a process that has ended is in the pipe.
            with self._mutex:
                ended = self._process.poll() is not None
            output += stdout.read(MAX_OUTPUT) or b""
            if len(output) > MAX_OUTPUT:
                return b"", f"wrote more than {MAX_OUTPUT >> 20} MiB"
            if ended or self._cancelled:
                return bytes(output), ""
            if clock() >= deadline:
                return b"", f"did not end within {timeout:g} s"
            time.sleep(POLL_INTERVAL)

    def _kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._interactive:
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)


def parse_credentials(output: bytes, api_version: str) -> ExecCredentials:
    """Return the credentials in a plugin's output. Raise `ConfigError`, which quotes only the version."""
    value = _parse_output(output)
    if not isinstance(value, dict) or value.get("kind") != "ExecCredential":
        raise ConfigError("its output is not an ExecCredential")
    version = value.get("apiVersion")
    if version != api_version:
        found = f"the apiVersion {plain(str(version), 100)}" if version else "no apiVersion"
        raise ConfigError(f"its output has {found}; the kubeconfig requires {api_version}")
    status = value.get("status")
    if status is None:
        raise ConfigError("its output has no status")
    if not isinstance(status, dict):
        raise ConfigError("the status is not an object")
    token, certificate, key, expires = (
        _text(status, name) for name in ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    )
    has_expiry = status.get("expirationTimestamp") is not None
    if bool(certificate) != bool(key):
        raise ConfigError("the status has only one of clientCertificateData and clientKeyData")
    if not token and not certificate:
        raise ConfigError("the status has neither a token nor a certificate with its key")
    if token:
        check_token(token, "the token")
    pair = None
    if certificate:
        # PEM, not base64 of it as in a kubeconfig. Load it now, so that unusable credentials are not cached.
        pair = ClientCertificate(certificate.encode(), key.encode())
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pair, "the status")
    return ExecCredentials(token, pair, _timestamp(expires) if has_expiry else None)


def _parse_output(output: bytes) -> Any:
    # Like client-go, accept YAML, which includes comments before the JSON.
    if not output.strip():
        raise ConfigError("its output is empty")
    try:
        if output.lstrip().startswith(b"{"):
            return json.loads(output)
        return parse_kubeconfig_yaml(output, "its output")
    except (ValueError, RecursionError, ConfigError):
        raise ConfigError("its output is not JSON or YAML") from None


def _text(status: Mapping[str, Any], name: str) -> str:
    value = status.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{name} is not text")
    return value


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _timestamp(text: str) -> float:
    # https://www.rfc-editor.org/rfc/rfc3339#section-5.6
    match = _TIME.fullmatch(text)
    if match is None:
        raise ConfigError("expirationTimestamp is not a time such as 2030-01-31T23:59:59Z")
    whole, fraction, offset = match.groups()
    try:
        time_of_day = datetime.fromisoformat(whole + offset.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigError("expirationTimestamp is not a valid date") from None
    return time_of_day.timestamp() + float(f"0.{fraction or 0}")

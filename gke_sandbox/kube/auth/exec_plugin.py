"""One run of an exec plugin: what it is told, how it is run, and what its output means."""

from __future__ import annotations

import base64
import codecs
import contextlib
import json
import os
import re
import selectors
import shlex
import signal
import ssl
import subprocess
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import Any

from ...errors import ConfigError
from ..programs import find_program
from .static import ClientCertificate, check_token

__all__ = [
    "ClusterInfo",
    "ExecConfig",
    "ExecCredentials",
    "PluginGone",
    "PluginRun",
    "exec_info",
    "is_interactive",
    "parse_credentials",
    "plugin_program",
    "visible",
]

GROUP = "client.authentication.k8s.io"
VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1beta1")
MODES = ("Never", "IfAvailable", "Always")

# A token is a few KB, a certificate with its chain some ten.
MAX_OUTPUT = 1 << 20
QUOTED_LINES = 5
QUOTED_LENGTH = 200
# Seconds that output may still take when the plugin has ended and left somebody behind who holds it open.
LAST_WORDS = 0.5
POLL = 0.05


@dataclass(frozen=True, kw_only=True)
class ExecConfig:
    """A user's ``exec`` entry. `source` is a phrase that says where it stands.

    `command` is a name to look for on PATH, or a path. `interactive_mode` is Never, IfAvailable or Always; empty
    is IfAvailable for v1beta1. Raises `ConfigError` for what client-go refuses.
    """

    # https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#ExecConfig
    api_version: str
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = ""
    source: str = field(default="the exec plugin", compare=False)

    def __post_init__(self) -> None:
        if not self.command:
            raise ConfigError(f"{self.source} has no command")
        if not self.api_version:
            raise ConfigError(f"{self.source} has no apiVersion", hint=f"It is {' or '.join(VERSIONS)}")
        if self.api_version not in VERSIONS:
            raise ConfigError(
                f"{self.source}: the apiVersion {self.api_version!r} is not supported",
                hint=f"It must be {' or '.join(VERSIONS)}; newer versions of most plugins know these.",
            )
        if any(not name for name, _ in self.env):
            raise ConfigError(f"{self.source}: a variable in env has no name")
        if any("=" in name or "\0" in name + value for name, value in self.env) or "\0" in "".join(
            (self.command, *self.args)
        ):
            raise ConfigError(f"{self.source}: its command, args or env hold what no program can be given")
        if not self.interactive_mode and self.api_version == VERSIONS[1]:
            object.__setattr__(self, "interactive_mode", "IfAvailable")
        if self.interactive_mode not in MODES:
            what = (
                f"the interactiveMode {self.interactive_mode!r}" if self.interactive_mode else "no interactiveMode"
            )
            raise ConfigError(f"{self.source} has {what}", hint=f"It must be one of {', '.join(MODES)}")


@dataclass(frozen=True, kw_only=True)
class ClusterInfo:
    """What a plugin is told about the cluster, if it asks (provideClusterInfo).

    `ca_data` is PEM, also where the kubeconfig names a file. `config` is JSON: the ``extension`` in the cluster's
    extension that is named ``client.authentication.k8s.io/exec``.
    """

    # https://kubernetes.io/docs/reference/config-api/client-authentication.v1/#client-authentication-k8s-io-v1-Cluster
    server: str
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool = False
    ca_data: bytes | None = field(default=None, repr=False)
    proxy_url: str | None = None
    disable_compression: bool = False
    config: object = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As it stands in KUBERNETES_EXEC_INFO, without what is not set."""
        fields = {
            "server": self.server,
            "tls-server-name": self.tls_server_name,
            "insecure-skip-tls-verify": self.insecure_skip_tls_verify,
            "certificate-authority-data": base64.b64encode(self.ca_data or b"").decode("ascii"),
            "proxy-url": self.proxy_url,
            "disable-compression": self.disable_compression,
        }
        set_fields: dict[str, Any] = {key: value for key, value in fields.items() if value or key == "server"}
        if self.config is not None:
            set_fields["config"] = _sorted(self.config)
        return set_fields


def _sorted(value: object) -> object:
    # client-go reads YAML as JSON, whose objects it writes with their keys in order.
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class ExecCredentials:
    """What a plugin gave. `expires_at` is in seconds since 1970; None is never."""

    token: str = field(default="", repr=False)
    certificate: ClientCertificate | None = None
    expires_at: float | None = None


class PluginGone(Exception):
    """The plugin was given up before it had ended."""


def is_interactive(config: ExecConfig, is_terminal: Callable[[], bool], stdin_unavailable: str | None) -> bool:
    """Whether the plugin may use our standard input. Raises `ConfigError` if it must, and cannot."""
    if config.interactive_mode == "Never":
        return False
    if config.interactive_mode == "IfAvailable":
        return stdin_unavailable is None and is_terminal()
    why = ""
    if not is_terminal():
        why = "standard input is not a terminal"
    elif stdin_unavailable is not None:
        why = f"standard input is unavailable{f': {stdin_unavailable}' if stdin_unavailable else ''}"
    if why:
        raise ConfigError(
            f"{config.source}: the plugin {config.command} asks a person (interactiveMode Always), and {why}",
            hint="Run this at a terminal, or use credentials that ask nobody.",
        )
    return True


def exec_info(config: ExecConfig, cluster: ClusterInfo, *, interactive: bool) -> str:
    """The text of KUBERNETES_EXEC_INFO, byte for byte as client-go writes it."""
    spec: dict[str, Any] = {"cluster": cluster.to_json()} if config.provide_cluster_info else {}
    spec["interactive"] = interactive
    value = {"kind": "ExecCredential", "apiVersion": config.api_version, "spec": spec}
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # What Go's encoder escapes.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text + "\n"


def plugin_program(config: ExecConfig, environ: Mapping[str, str]) -> str | None:
    """Return the absolute path of the plugin, or None if there is no such file.

    Only a bare name is looked for on PATH. Raise `ConfigError` if it is found through an empty or relative entry.
    """
    command = config.command
    if os.path.dirname(command):
        return os.path.abspath(command) if os.path.isfile(command) else None
    try:
        return find_program(
            command, environ.get("PATH", os.defpath), fix="name the plugin by an absolute path in the kubeconfig"
        )
    except ConfigError as error:
        raise ConfigError(f"{config.source}: the exec plugin {error.message}", hint=error.hint) from None


class PluginRun:
    """A plugin that is ready to be run, once. `limit` is in seconds."""

    def __init__(
        self, config: ExecConfig, info: str, interactive: bool, environ: Mapping[str, str], limit: float
    ) -> None:
        self.config = config
        self.environ = environ
        self._info = info
        self._interactive = interactive
        self._limit = limit
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False
        self._said: deque[str] = deque([""], maxlen=QUOTED_LINES + 1)

    def give_up(self) -> None:
        """Kill the plugin, from another thread; `credentials` raises `PluginGone`."""
        with self._lock:
            self._given_up = True
            self._kill()

    def credentials(self) -> ExecCredentials:
        """Run the plugin and read what it says; its standard error goes to ours as it comes.

        Raises `ConfigError`, and `PluginGone` when it was given up.
        """
        process = self._start()
        try:
            output, seconds = self._talk(process)
        finally:
            with self._lock:
                self._kill()
            self._forget(process)
        if self._given_up:
            raise PluginGone
        if seconds is not None:
            raise self._failed(f"was killed: it had not ended after {seconds:g} s")
        if len(output) > MAX_OUTPUT:
            raise self._failed(f"was killed: it wrote more than {MAX_OUTPUT >> 20} MiB")
        if process.returncode:
            code = process.returncode
            raise self._failed(f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}")
        try:
            return parse_credentials(bytes(output), self.config.api_version)
        except (ConfigError, ValueError) as error:
            raise self._failed(f"gave no credentials: {error}") from error

    def _start(self) -> subprocess.Popen[bytes]:
        program = plugin_program(self.config, self.environ)
        if program is None:
            raise self._not_there()
        environment = {**self.environ, **dict(self.config.env), "KUBERNETES_EXEC_INFO": self._info}
        with self._lock:
            if self._given_up:
                raise PluginGone
            try:
                self._process = subprocess.Popen(
                    [self.config.command, *self.config.args],
                    executable=program,
                    env=environment,
                    stdin=None if self._interactive else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    # One that asks on the terminal must stay in the group that the terminal listens to.
                    start_new_session=not self._interactive,
                )
            except FileNotFoundError:
                # Its interpreter, in the first line of a script, may be what is missing.
                raise self._not_there() from None
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                raise self._failed(f"cannot be run: {why}") from error
            return self._process

    def _talk(self, process: subprocess.Popen[bytes]) -> tuple[bytearray, float | None]:
        """What it wrote, and the limit in seconds if it was reached."""
        output = bytearray()
        words = codecs.getincrementaldecoder("utf-8")("replace")
        ends_at = time.monotonic() + self._limit
        ended_at = None
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map() or ended_at is None:
                now = time.monotonic()
                if ended_at is None and self._has_ended(process):
                    ended_at = now
                if self._given_up or len(output) > MAX_OUTPUT:
                    return output, None
                if now >= ends_at:
                    return output, self._limit
                if ended_at is not None and now - ended_at > LAST_WORDS:
                    break
                if not selector.get_map():
                    time.sleep(0.002)
                    continue
                for key, _ in selector.select(min(POLL, ends_at - now)):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        output += data
                    else:
                        self._pass_on(words.decode(data))
        return output, None

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        # Whoever kills must not meet the number of a process that was reaped just now.
        with self._lock:
            return process.poll() is not None

    def _pass_on(self, text: str) -> None:
        lines = (self._said.pop() + text).split("\n")
        lines[-1] = lines[-1][-10 * QUOTED_LENGTH :]
        self._said.extend(lines)
        # Ours may be closed, or None where there is no console.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)
            sys.stderr.flush()

    def _kill(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._interactive:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        while not self._has_ended(process):
            time.sleep(0.002)

    def _not_there(self) -> ConfigError:
        hint = visible(self.config.install_hint).strip()
        return ConfigError(
            f"{self.config.source}: the exec plugin {self.config.command} was not found",
            hint=hint or "Install it, or put its directory on PATH.",
        )

    def _failed(self, what: str) -> ConfigError:
        lines = [visible(line).strip()[:QUOTED_LENGTH] for line in self._said if line.strip()][-QUOTED_LINES:]
        said = f"; it said: {' / '.join(lines)}" if lines else ""
        by_hand = shlex.join([self.config.command, *self.config.args])
        return ConfigError(
            f"{self.config.source}: the exec plugin {self.config.command} {what}{said}",
            hint=f"Run it by hand to see more: {visible(by_hand)}",
        )


def parse_credentials(output: bytes, api_version: str) -> ExecCredentials:
    """The credentials in what a plugin wrote. Raises `ConfigError`, or `ValueError`, which quote none of it."""
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        raise ConfigError("its output is not JSON" if output.strip() else "it wrote nothing") from None
    if not isinstance(value, dict) or value.get("kind") != "ExecCredential":
        raise ConfigError("its output is no ExecCredential")
    version = value.get("apiVersion")
    if version != api_version:
        said = f"has the apiVersion {visible(str(version))[:100]}" if version else "has no apiVersion"
        raise ConfigError(f"its output {said}, and {api_version} is what the kubeconfig asks for")
    status = value.get("status")
    if status is None:
        raise ConfigError("its output has no status")
    if not isinstance(status, dict):
        raise ConfigError("the status is not an object")
    token, certificate, key, expires = (
        _text(status, name) for name in ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    )
    if bool(certificate) != bool(key):
        raise ConfigError("the status has only one of clientCertificateData and clientKeyData")
    if not token and not certificate:
        raise ConfigError("the status has neither a token nor a certificate with its key")
    if token:
        check_token(token, "the token")
    pair = _pair(certificate, key) if certificate else None
    return ExecCredentials(token, pair, _seconds(expires) if expires else None)


def _text(status: Mapping[str, Any], name: str) -> str:
    value = status.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{name} is not text")
    return value


def _pair(certificate: str, key: str) -> ClientCertificate:
    # At need: whoever has a token needs no TLS settings of ours.
    from ..http.tls import load_certificate

    # PEM as it stands, not base64 of it, unlike in a kubeconfig.
    pair = ClientCertificate(certificate.encode(), key.encode())
    # Credentials that cannot be used must not be kept.
    load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pair, "the status")
    return pair


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


def _seconds(text: str) -> float:
    # https://www.rfc-editor.org/rfc/rfc3339#section-5.6
    found = _TIME.fullmatch(text)
    if found is None:
        raise ConfigError("expirationTimestamp is not a time as in 2030-01-31T23:59:59Z")
    whole, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        raise ConfigError("expirationTimestamp is a time that there is not") from None
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)).total_seconds()
    return moment + float(f"0.{fraction or 0}") - (offset if sign == "+" else -offset)


def visible(text: str) -> str:
    """`text` with its control characters written out (``U+001B``), but for white space: it ends on a terminal."""
    return "".join(
        f"U+{ord(c):04X}" if unicodedata.category(c).startswith("C") and c not in "\t\n\v\f\r" else c for c in text
    )

"""Credentials files of all of Google's kinds, refreshed by google-auth over httpx.

Importing this module imports google.auth, so `google` imports it only when needed. google-auth's own `default()`
is not used: it runs gcloud to find a project, and needs the package requests for some kinds of files.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
from collections.abc import Mapping
from datetime import timezone
from types import SimpleNamespace
from typing import Any

import google.auth.exceptions
import httpx

from ...errors import ConfigError, NetworkError, SandboxError
from ..programs import find_program
from ..status import plain
from .google_base import SCOPES, Token, google_http

__all__ = ["FileCredentials"]

AWS_TOKEN_TYPE = "urn:ietf:params:aws:token-type:aws4_request"
DESCRIPTIONS = {
    "service_account": "service account key",
    "authorized_user": "user credentials",
    "impersonated_service_account": "impersonated service account",
    "external_account": "workload identity federation",
    "external_account_authorized_user": "workforce identity federation",
}
_LOGIN_HINT = (
    "Log in again: gcloud auth application-default login. For unattended programs, use a service account."
)


def _transport(client: httpx.Client) -> Any:
    """Return the function through which google-auth sends requests. It raises google-auth's TransportError."""
    # https://googleapis.dev/python/google-auth/latest/reference/google.auth.transport.html

    def send(
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> SimpleNamespace:
        limit = httpx.USE_CLIENT_DEFAULT if timeout is None else httpx.Timeout(timeout)
        try:
            response = client.request(method, url, content=body, headers=dict(headers or {}), timeout=limit)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Only the host: a URL may contain a token.
            reason = plain(str(error), 300) or type(error).__name__
            if isinstance(error, httpx.LocalProtocolError):
                # Its text may quote a header, which may contain a token.
                reason = "the request cannot be sent"
            raise _transport_error(f"{_host(url)}: {reason}") from error
        return SimpleNamespace(status=response.status_code, headers=response.headers, data=response.content)

    return send


# google-auth claims to be typed, but most of its functions are not: use them through names of type Any.
_transport_error: Any = google.auth.exceptions.TransportError


def _host(url: str) -> str:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return "an invalid URL"


class FileCredentials:
    """The credentials in a JSON file: service account key, user, impersonation or federation.

    `where` names the file in messages. Raise `ConfigError` for a file of another kind, without showing its
    content.
    """

    # https://cloud.google.com/docs/authentication/application-default-credentials

    def __init__(self, content: bytes, where: str) -> None:
        try:
            info = json.loads(content)
        except ValueError:
            raise ConfigError(f"{where} is not JSON") from None
        if not isinstance(info, dict):
            raise ConfigError(f"{where} contains no Google credentials: it is not a JSON object")
        self.kind = str(info.get("type"))
        self.description = f"{DESCRIPTIONS.get(self.kind, 'credentials')} in {where}"
        quota = info.get("quota_project_id")
        self.quota_project = quota if isinstance(quota, str) and quota else None
        self._where = where
        self._credentials = _load(info, where)

    def fetch(self) -> Token:
        """Return a new token. Raise `NetworkError` without a response, `ConfigError` if Google refused."""
        credentials = self._credentials
        try:
            with google_http() as client:
                # Not before_request(): it starts requests in the background.
                credentials.refresh(_transport(client))
        # KeyError and similar: google-auth reads responses and token files without checking them.
        except (
            google.auth.exceptions.GoogleAuthError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OSError,
        ) as error:
            # Not chained: google-auth's errors contain whole responses, which may contain tokens.
            raise self._error_for(error) from None
        if not isinstance(credentials.token, str):
            raise ConfigError(f"{self._where}: Google returned no access token for these credentials")
        expiry = credentials.expiry
        # google-auth's times are in UTC, but without a time zone.
        expires_at = None if expiry is None else expiry.replace(tzinfo=timezone.utc).timestamp()
        return Token(credentials.token, expires_at)

    def _error_for(self, error: Exception) -> SandboxError:
        prefix = f"cannot get a Google token for {self.description}"
        if isinstance(error, google.auth.exceptions.TransportError):
            return NetworkError(
                f"{prefix}: {_message(error)}",
                sent=False,
                hint="Check that Google's APIs can be reached from here (DNS, proxy, firewall).",
            )
        if not isinstance(error, (google.auth.exceptions.GoogleAuthError, OSError)):
            return ConfigError(
                f"{prefix}: google-auth could not read a response or a file ({type(error).__name__})"
            )
        reason = _refusal(error)
        hint = ""
        if "authorized_user" in self.kind and ("invalid_grant" in reason or "eauth" in reason):
            hint = _LOGIN_HINT
        elif self.kind == "service_account" and "invalid_grant" in reason:
            hint = "Check that the key was not deleted, and that the clock of this machine is right."
        elif "iam.serviceAccounts.getAccessToken" in reason:
            hint = "It needs roles/iam.serviceAccountTokenCreator on the service account that it impersonates."
        return ConfigError(f"{prefix}: {reason}", hint=hint)


def _message(error: Exception) -> str:
    return plain(str(error.args[0]), 500) if error.args else type(error).__name__


def _refusal(error: Exception) -> str:
    """Return the error's message and that of the response in it, but nothing else of the response."""
    if isinstance(error, OSError) and error.strerror:
        # google-auth's own OSError has no strerror.
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = _message(error)
    if message.startswith(("{", "<")):
        message = "Google's response could not be read"
    response: Any = error.args[1] if len(error.args) > 1 else None
    if isinstance(response, (str, bytes)):
        try:
            response = json.loads(response)
        except ValueError:
            response = None
    inner = response.get("error") if isinstance(response, dict) else None
    detail = inner.get("message") if isinstance(inner, dict) else None
    return f"{message}: {plain(detail, 500)}" if isinstance(detail, str) else message


def _load(info: Mapping[str, Any], where: str) -> Any:
    try:
        return _create(info)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise ConfigError(f"{where} cannot be used: {_message(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = _message(error) if isinstance(error, ValueError) else f"a field is missing or wrong ({error})"
        raise ConfigError(f"{where} cannot be used: {plain(reason, 300)}") from None


def _create(info: Mapping[str, Any]) -> Any:
    kind = info.get("type")
    scopes = list(SCOPES)
    if kind == "service_account":
        return _class("google.oauth2.service_account").from_service_account_info(info, scopes=scopes)
    if kind == "authorized_user":
        # Without scopes: the user granted them at log-in, and a request for others is refused.
        return _class("google.oauth2.credentials").from_authorized_user_info(info)
    if kind == "external_account_authorized_user":
        return _class("google.auth.external_account_authorized_user").from_info(info)
    if kind == "external_account":
        return _federated(info).from_info(_with_program(info), scopes=scopes)
    if kind == "impersonated_service_account":
        return _impersonated(info, scopes)
    raise ConfigError(f"its type is {plain(repr(kind), 100)}, not one of {', '.join(DESCRIPTIONS)}")


def _class(module: str) -> Any:
    return importlib.import_module(module).Credentials


def _federated(info: Mapping[str, Any]) -> Any:
    # https://google.aip.dev/auth/4117
    source = info.get("credential_source")
    if info.get("subject_token_type") == AWS_TOKEN_TYPE:
        return _class("google.auth.aws")
    if isinstance(source, Mapping) and "executable" in source:
        return _class("google.auth.pluggable")
    if isinstance(source, Mapping) and "certificate" in source:
        # google-auth would present the certificate in the token request, which `_transport` cannot do.
        raise ConfigError("workload identity federation with an X.509 certificate is not supported")
    return _class("google.auth.identity_pool")


def _with_program(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `info` with the absolute path of the program that returns the token, if it must be found on PATH.

    Raise `ConfigError` if it is found through an empty or relative entry of PATH.
    """
    source: Any = info.get("credential_source")
    executable: Any = source.get("executable") if isinstance(source, Mapping) else None
    command = executable.get("command") if isinstance(executable, Mapping) else None
    # google-auth splits the command in the same way, and runs it with this process's environment.
    words = shlex.split(command) if isinstance(command, str) else []
    if not words or os.path.dirname(words[0]):
        return info
    fix = "name the program by an absolute path"
    program = find_program(words[0], os.environ.get("PATH", os.defpath), fix=fix)
    if program is None:
        return info
    found = {**executable, "command": shlex.join([program, *words[1:]])}
    return {**info, "credential_source": {**source, "executable": found}}


def _impersonated(info: Mapping[str, Any], scopes: list[str]) -> Any:
    source = info.get("source_credentials")
    if not isinstance(source, Mapping):
        raise ConfigError("it has no source_credentials")
    url = str(info.get("service_account_impersonation_url"))
    principal, found, _ = url.rpartition("/")[2].partition(":generateAccessToken")
    if not found or not principal:
        raise ConfigError(
            "its service_account_impersonation_url does not end in SERVICE_ACCOUNT:generateAccessToken"
        )
    return _class("google.auth.impersonated_credentials")(
        source_credentials=_create(source),
        target_principal=principal,
        target_scopes=scopes,
        delegates=info.get("delegates"),
    )

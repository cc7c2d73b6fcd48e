"""The edge to google-auth: a credentials file of any of Google's kinds, refreshed over httpx.

Importing this module imports google.auth; `google_credentials` does so at first need. google-auth's own
`default()` is not used: it runs gcloud to find a project, and needs the library requests for some kinds of file.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import timezone
from typing import Any

import google.auth.exceptions
import google.auth.transport
import httpx

from ...errors import ConfigError, NetworkError, SandboxError
from ..programs import find_program
from ..status import plain
from .google_base import Token, google_http

__all__ = ["FileCredentials", "HttpxRequest"]

_AWS = "urn:ietf:params:aws:token-type:aws4_request"
# The kinds of file, in words.
_PHRASES = {
    "service_account": "service account key",
    "authorized_user": "user credentials",
    "impersonated_service_account": "impersonated service account",
    "external_account": "workload identity federation",
    "external_account_authorized_user": "workforce identity federation",
}
_LOGIN_AGAIN = (
    "Log in again: gcloud auth application-default login. A program that runs unattended is better off with a "
    "service account."
)


class Response(google.auth.transport.Response):
    """An answer as google-auth wants it; the headers' names are case-insensitive."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def data(self) -> bytes:
        return self._response.content


class HttpxRequest(google.auth.transport.Request):
    """google-auth's way to the network: a call sends one request through `client`.

    The client's own limits hold when google-auth names none. Raises google-auth's TransportError.
    """

    # https://googleapis.dev/python/google-auth/latest/reference/google.auth.transport.html

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> Response:
        limit = httpx.USE_CLIENT_DEFAULT if timeout is None else httpx.Timeout(timeout)
        try:
            return Response(
                self._client.request(method, url, content=body, headers=dict(headers or {}), timeout=limit)
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Only the host: an address may hold a token.
            raise _transport_error(f"{_host(url)}: {_words(error)}") from error


# google-auth says that it has types, and most of its functions have none: through names that are Any.
_transport_error: Any = google.auth.exceptions.TransportError


def _host(url: str) -> str:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return "an address that is no URL"


def _words(error: Exception) -> str:
    if isinstance(error, httpx.LocalProtocolError):
        # Its text may quote a header, and the header a token.
        return "the request cannot be sent"
    return plain(str(error), 300) or type(error).__name__


class FileCredentials:
    """Credentials that a JSON file describes: service account key, user, impersonation, federation.

    `content` is the file's, `where` names it to people. Raises `ConfigError` for a file that is none of these,
    without showing what stands in it.
    """

    # https://cloud.google.com/docs/authentication/application-default-credentials

    def __init__(
        self,
        content: bytes,
        where: str,
        scopes: Sequence[str],
        *,
        client: Callable[[], httpx.Client] = google_http,
    ) -> None:
        try:
            info = json.loads(content)
        except ValueError:
            raise ConfigError(f"{where} is not JSON") from None
        if not isinstance(info, dict):
            raise ConfigError(f"{where} holds no Google credentials: it is not a JSON object")
        self.kind = str(info.get("type"))
        self.description = f"{_PHRASES.get(self.kind, 'credentials')} in {where}"
        quota = info.get("quota_project_id")
        self.quota_project = quota if isinstance(quota, str) and quota else None
        self._where = where
        self._client = client
        self._credentials = _load(info, where, scopes)

    def __repr__(self) -> str:
        return f"FileCredentials({self.description!r})"

    def fetch(self) -> Token:
        """A new token. Raises `NetworkError` if nobody answered, `ConfigError` if the credentials were refused."""
        credentials = self._credentials
        try:
            with self._client() as client:
                # Not before_request(): it starts look-ups in the background.
                credentials.refresh(HttpxRequest(client))
        # KeyError and its kin: google-auth looks into answers and token files without checking them.
        except (
            google.auth.exceptions.GoogleAuthError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OSError,
        ) as error:
            # Not chained: google-auth keeps whole answers in its errors, and they may hold tokens.
            raise self._failure(error) from None
        if not isinstance(credentials.token, str):
            raise ConfigError(f"{self._where}: Google gave no access token for these credentials")
        expiry = credentials.expiry
        # google-auth's times are in UTC and do not say so.
        expires_at = None if expiry is None else expiry.replace(tzinfo=timezone.utc).timestamp()
        return Token(credentials.token, expires_at)

    def _failure(self, error: Exception) -> SandboxError:
        if isinstance(error, google.auth.exceptions.TransportError):
            return NetworkError(
                f"cannot get a Google token for {self.description}: {_first(error)}",
                sent=False,
                hint="Is there a way to Google's APIs from here (DNS, proxy, firewall)?",
            )
        if not isinstance(error, (google.auth.exceptions.GoogleAuthError, OSError)):
            return ConfigError(
                f"cannot get a Google token for {self.description}: an answer or a file that google-auth reads is "
                f"not as expected ({type(error).__name__})"
            )
        told = _told(error)
        hint = ""
        if "authorized_user" in self.kind and ("invalid_grant" in told or "eauth" in told):
            hint = _LOGIN_AGAIN
        elif self.kind == "service_account" and "invalid_grant" in told:
            hint = "Was the key deleted, or is this machine's clock wrong?"
        elif "iam.serviceAccounts.getAccessToken" in told:
            hint = "It needs roles/iam.serviceAccountTokenCreator on the service account that it impersonates."
        return ConfigError(f"cannot get a Google token for {self.description}: {told}", hint=hint)


def _first(error: Exception) -> str:
    return plain(str(error.args[0]), 500) if error.args else type(error).__name__


def _told(error: Exception) -> str:
    """What the error says first, and the reason in words in the answer behind it; nothing else of that answer."""
    if isinstance(error, OSError) and error.strerror:
        # google-auth's own OSError has no strerror.
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    words = _first(error)
    if words.startswith(("{", "<")):
        words = "Google's answer was not understood"
    answer: Any = error.args[1] if len(error.args) > 1 else None
    if isinstance(answer, (str, bytes)):
        try:
            answer = json.loads(answer)
        except ValueError:
            answer = None
    inner = answer.get("error") if isinstance(answer, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    return f"{words}: {plain(message, 500)}" if isinstance(message, str) else words


def _load(info: Mapping[str, Any], where: str, scopes: Sequence[str]) -> Any:
    try:
        return _make(info, scopes)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise ConfigError(f"{where} cannot be used: {_first(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = _first(error) if isinstance(error, ValueError) else f"a field is missing or wrong ({error})"
        raise ConfigError(f"{where} cannot be used: {plain(reason, 300)}") from None


def _make(info: Mapping[str, Any], scopes: Sequence[str]) -> Any:
    kind = info.get("type")
    if kind == "service_account":
        return _class("google.oauth2.service_account").from_service_account_info(info, scopes=list(scopes))
    if kind == "authorized_user":
        # Without scopes: the user has given them at log-in, and asking for others is refused.
        return _class("google.oauth2.credentials").from_authorized_user_info(info)
    if kind == "external_account_authorized_user":
        return _class("google.auth.external_account_authorized_user").from_info(info)
    if kind == "external_account":
        return _federated(info).from_info(_with_program(info), scopes=list(scopes))
    if kind == "impersonated_service_account":
        return _impersonated(info, scopes)
    if kind == "gdch_service_account":
        raise ConfigError("credentials of Google Distributed Cloud are not supported")
    raise ConfigError(f"its type is {plain(repr(kind), 100)}, not one of {', '.join(_PHRASES)}")


def _class(module: str) -> Any:
    # By name: google-auth says that it has types, and most of its functions have none.
    return importlib.import_module(module).Credentials


def _federated(info: Mapping[str, Any]) -> Any:
    # https://google.aip.dev/auth/4117
    source = info.get("credential_source")
    if info.get("subject_token_type") == _AWS:
        return _class("google.auth.aws")
    if isinstance(source, Mapping) and "executable" in source:
        return _class("google.auth.pluggable")
    if isinstance(source, Mapping) and "certificate" in source:
        # google-auth would want the token's request to show it.
        raise ConfigError("workload identity federation with an X.509 certificate is not supported")
    return _class("google.auth.identity_pool")


def _with_program(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `info` with the absolute path of the program that gives the token, if it names one to find on PATH.

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


def _impersonated(info: Mapping[str, Any], scopes: Sequence[str]) -> Any:
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
        source_credentials=_make(source, scopes),
        target_principal=principal,
        target_scopes=list(scopes),
        delegates=info.get("delegates"),
    )

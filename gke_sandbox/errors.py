"""All exceptions of this package.

::

    SandboxError                    the base class; `hint`: what to do next
    ├── ConfigError                 your mistake: no cluster, a bad kubeconfig, missing credentials, a failed check
    ├── SpecError                   your mistake: an invalid setting or argument, named by `field`
    │   └── PayloadTooLarge         code and files do not fit into one ConfigMap; nothing was sent
    ├── ApiError                    an error response of the server: `code`, `reason`, `causes`
    │   ├── BadRequest, Unauthorized, Forbidden, NotFound, AlreadyExists, Conflict, Expired, Invalid,
    │   │   RequestEntityTooLarge, TooManyRequests
    │   └── ServerError             a failure of the server: 500, 503, 504 and similar
    ├── NetworkError                no response: refused, reset, timed out, TLS; `sent`: it may have arrived
    ├── StartError                  the sandbox did not start
    ├── ResultLost                  the program may have run, but its result is lost
    ├── CassetteError               a recording that cannot be read or written
    │   └── ReplayMismatch          the run differs from the recorded one
    └── SandboxClosed               the Sandbox is closed
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AlreadyExists",
    "ApiError",
    "BadRequest",
    "CassetteError",
    "ConfigError",
    "Conflict",
    "Expired",
    "Forbidden",
    "Invalid",
    "NetworkError",
    "NotFound",
    "PayloadTooLarge",
    "ReplayMismatch",
    "RequestEntityTooLarge",
    "ResultLost",
    "SandboxClosed",
    "SandboxError",
    "ServerError",
    "SpecError",
    "StartError",
    "StatusCause",
    "TooManyRequests",
    "Unauthorized",
]


class SandboxError(Exception):
    """The base class of every error that this package raises on purpose.

    The message describes what was wrong and where; `hint` describes what to do about it, if anything. Tracebacks
    and pytest show both: the hint is a note of the exception or, before Python 3.11, the last line of `str()`.
    """

    results: Sequence[Any] = ()
    """If `map` raised this error: the results of the programs that had finished, and None for the others."""

    may_have_run: bool = True
    """Whether the program may have started. If False, running it again is safe."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = ""
        if hint:
            self.set_hint(hint)

    def set_hint(self, hint: str) -> None:
        """Replace the hint."""
        if sys.version_info >= (3, 11):
            notes: list[str] = getattr(self, "__notes__", [])
            self.__notes__ = [note for note in notes if note != f"hint: {self.hint}"] + [f"hint: {hint}"]
        self.hint = hint

    if sys.version_info < (3, 11):

        def __str__(self) -> str:
            return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # The constructors take more than the message: a pool of processes must get the whole error back.
        return _revived, (type(self), self.args, self.__dict__)


def _revived(kind: type[SandboxError], args: tuple[object, ...], state: dict[str, object]) -> SandboxError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigError(SandboxError):
    """There is no usable cluster: nothing configured, a broken kubeconfig, missing credentials, a failed `check`.

    The message of `check` lists all failures; ``__cause__`` is the error of the first failed request, if any.
    """

    may_have_run = False


class SpecError(SandboxError, ValueError):
    """An invalid setting or argument. Raised before any request is sent.

    `field` is its path (``cpu_limit``, ``files['../x']``), `problem` what is wrong with it; the message is both.
    `mentions` are the names of other settings that occur in `problem` or `hint`.
    """

    may_have_run = False

    def __init__(self, field: str, problem: str, *, hint: str = "", mentions: tuple[str, ...] = ()) -> None:
        super().__init__(f"{field}: {problem}", hint=hint)
        self.field = field
        self.problem = problem
        self.mentions = mentions

    def renamed(self, names: Mapping[str, str], field: str | None = None) -> SpecError:
        """Return this error with other names of settings: `names` maps them. `field` replaces the path."""
        setting, bracket, entry = self.field.partition("[")
        problem, hint = self.problem, self.hint
        for name in self.mentions:
            problem, hint = (text.replace(name, names.get(name, name)) for text in (problem, hint))
        renamed = copy.copy(self)
        # The constructor adds the note of the hint again.
        vars(renamed).pop("__notes__", None)
        path = field or names.get(setting, setting) + bracket + entry
        SpecError.__init__(renamed, path, problem, hint=hint, mentions=self.mentions)
        return renamed


class PayloadTooLarge(SpecError):
    """Code, files and stdin do not fit into one ConfigMap, not even compressed.

    `size` and `limit` are bytes, as they would have been sent.
    """

    def __init__(
        self, field: str, problem: str, *, size: int, limit: int, hint: str = "", mentions: tuple[str, ...] = ()
    ) -> None:
        super().__init__(field, problem, hint=hint, mentions=mentions)
        self.size = size
        self.limit = limit


@dataclass(frozen=True)
class StatusCause:
    """One entry of ``Status.details.causes``."""

    reason: str = ""
    message: str = ""
    field: str = ""


class ApiError(SandboxError):
    """An error response of the API server.

    Branch on the class or on `reason`, not on `code` alone: 409 is AlreadyExists or Conflict, and 500 has
    three reasons. https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
    `server_message` is the message of the Status, "" if the response had none.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int,
        reason: str,
        causes: tuple[StatusCause, ...] = (),
        details: dict[str, object] | None = None,
        retry_after: float | None = None,
        request: str = "",
        server_message: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.reason = reason
        self.causes = causes
        self.details = details or {}
        self.retry_after = retry_after
        self.request = request
        self.server_message = server_message


class BadRequest(ApiError):
    """400: an invalid request, or one that is not possible yet (the log of a container that waits to start)."""


class Unauthorized(ApiError):
    """401: the credentials are missing or not accepted."""


class Forbidden(ApiError):
    """403: the user may not do this (RBAC), or admission refused it.

    `retryable` is True if the server may allow the same request in a moment, because it has just started.
    """

    retryable = False


class NotFound(ApiError):
    """404: the object does not exist."""


class AlreadyExists(ApiError):
    """409, reason AlreadyExists: an object of that name exists."""


class Conflict(ApiError):
    """409, reason Conflict: a precondition is not met, or the object was changed by another request."""


class Expired(ApiError):
    """410, reason Expired or Gone: the resourceVersion is too old; list again."""


class Invalid(ApiError):
    """422: the object is invalid; `causes` name the fields."""


class RequestEntityTooLarge(ApiError):
    """413: the request's body is over 3 MiB."""


class TooManyRequests(ApiError):
    """429: retry after `retry_after` seconds."""


class ServerError(ApiError):
    """5xx, or a response that is not from Kubernetes. The server may or may not have processed the request.

    `retryable` is False if the address is not that of a Kubernetes API.
    """

    retryable = True


class NetworkError(SandboxError):
    """No response was received. `sent` is False only if the request is known not to have reached the server.

    `retryable` is False if sending the request again cannot help, because it is not valid HTTP.
    """

    def __init__(
        self, message: str, *, sent: bool, request: str = "", hint: str = "", retryable: bool = True
    ) -> None:
        super().__init__(message, hint=hint)
        self.sent = sent
        self.request = request
        self.retryable = retryable


class StartError(SandboxError):
    """The sandbox did not start.

    `cause` names the diagnosis (``image_not_found``, ``no_gvisor_node``: docs/troubleshooting.md lists them all).
    `reason` is Kubernetes' reason, if there is one (``ErrImagePull``, ``Unschedulable``, ``StartError``). `pod` is
    the pod's name, if there was a pod. After a startup timeout `may_have_run` is True: the program can still start
    before the Job is deleted.
    """

    may_have_run = False

    def __init__(
        self,
        message: str,
        *,
        cause: str = "",
        reason: str = "",
        job: str = "",
        pod: str = "",
        may_have_run: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause
        self.reason = reason
        self.job = job
        self.pod = pod
        self.may_have_run = may_have_run


class ResultLost(SandboxError):
    """The program may have run, but it is unknown how it ended.

    `cause` names the diagnosis, if there is one: docs/troubleshooting.md lists them all. `stdout` and `stderr` are
    the output that was read until then.
    """

    def __init__(
        self,
        message: str,
        *,
        cause: str = "",
        job: str = "",
        pod: str = "",
        stdout: str = "",
        stderr: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause
        self.job = job
        self.pod = pod
        self.stdout = stdout
        self.stderr = stderr


class CassetteError(SandboxError):
    """A cassette that cannot be read (invalid, truncated, of a newer format, of another scenario) or written."""


class ReplayMismatch(CassetteError):
    """The run differs from the recorded one: an unexpected request, or recorded requests that were not made."""


class SandboxClosed(SandboxError):
    """The Sandbox was closed, before this call (`may_have_run` is False) or during it."""

    def __init__(self, message: str, *, may_have_run: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.may_have_run = may_have_run

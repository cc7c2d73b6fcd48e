"""Every exception of this package, one tree.

::

    SandboxError                    the root; `hint` says what to do next
    ├── ConfigError                 your mistake: no cluster, a bad kubeconfig, missing credentials
    ├── SpecError                   your mistake: what was asked for; `field` says where
    │   └── PayloadTooLarge         code and files do not fit into one ConfigMap; nothing was sent
    ├── ApiError                    the server's answer, a Status: `code`, `reason`, `causes`
    │   ├── BadRequest, Unauthorized, Forbidden, NotFound, AlreadyExists, Conflict, Expired, Invalid,
    │   │   RequestEntityTooLarge, TooManyRequests
    │   └── ServerError             the server's own trouble: 500, 503, 504 and their kin
    ├── NetworkError                no answer: refused, reset, timed out, TLS; `sent` says if it may have arrived
    ├── StartError                  the sandbox did not start: the program has not run
    ├── ResultLost                  the program may have run, its result is lost
    ├── CassetteError               a recording that cannot be read or written
    │   └── ReplayMismatch          the run is not the recorded one
    └── SandboxClosed               the Sandbox is closed
"""

from __future__ import annotations

import copy
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
    """The root of every error that this package raises on purpose.

    The message says what was wrong and where; `hint`, when there is one, what to do about it.
    """

    results: Sequence[Any] = ()
    """If `map` raised this error: the results of the programs that had finished, and None for the others."""

    may_have_run: bool = True
    """Whether the program may have started. If False, running it again is safe."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # The constructors take more than the message: a pool of processes must get the whole error back.
        return _revived, (type(self), self.args, self.__dict__)


def _revived(kind: type[SandboxError], args: tuple[object, ...], state: dict[str, object]) -> SandboxError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigError(SandboxError):
    """There is no usable cluster: nothing configured, a broken kubeconfig, missing credentials."""

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
        path = field or names.get(setting, setting) + bracket + entry
        SpecError.__init__(renamed, path, problem, hint=hint, mentions=self.mentions)
        return renamed


class PayloadTooLarge(SpecError):
    """Code, files and stdin do not fit into one ConfigMap, not even compressed.

    `size` and `limit` are bytes, as they would have been sent.
    """

    def __init__(
        self,
        field: str,
        problem: str,
        *,
        size: int,
        limit: int,
        hint: str = "",
        mentions: tuple[str, ...] = (),
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
    """The API server refused a request and said why.

    Branch on the class or on `reason`, not on `code` alone: 409 is AlreadyExists or Conflict, and 500 has
    three reasons. https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
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
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.reason = reason
        self.causes = causes
        self.details = details or {}
        self.retry_after = retry_after
        self.request = request


class BadRequest(ApiError):
    """400: the request could not be understood, or not now (the log of a container that waits to start)."""


class Unauthorized(ApiError):
    """401: the server does not know who asks."""


class Forbidden(ApiError):
    """403: the server knows who asks, and refuses: RBAC, or admission."""


class NotFound(ApiError):
    """404: no such object."""


class AlreadyExists(ApiError):
    """409, reason AlreadyExists: an object of that name is there."""


class Conflict(ApiError):
    """409, reason Conflict: a precondition does not hold, or other requests changed the same object meanwhile."""


class Expired(ApiError):
    """410, reason Expired or Gone: the resourceVersion is too old; list again."""


class Invalid(ApiError):
    """422: the object breaks a rule; `causes` name the fields."""


class RequestEntityTooLarge(ApiError):
    """413: the request's body is over 3 MiB."""


class TooManyRequests(ApiError):
    """429: ask again after `retry_after` seconds."""


class ServerError(ApiError):
    """5xx, or an answer that is not Kubernetes': the request may or may not have been carried out."""


class NetworkError(SandboxError):
    """There was no answer. `sent` is False only when the request surely did not arrive."""

    def __init__(self, message: str, *, sent: bool, request: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sent = sent
        self.request = request


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
    """The program may have run; how it ended is not known.

    `cause` names the diagnosis, if there is one: docs/troubleshooting.md has them all. `stdout` and `stderr` are
    what was read until then.
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
    """A recording that cannot be read (no YAML, cut off, of a newer format, for another scenario) or written."""


class ReplayMismatch(CassetteError):
    """The run is not the recorded one: a request that was not recorded, or recorded requests that did not come."""


class SandboxClosed(SandboxError):
    """The Sandbox was closed, before this call (`may_have_run` is False) or during it."""

    def __init__(self, message: str, *, may_have_run: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.may_have_run = may_have_run

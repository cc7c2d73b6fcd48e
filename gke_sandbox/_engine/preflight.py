"""Check whether programs can run, without running one: permissions, and a dry run of the real Job and ConfigMap.

Nothing is created. `AsyncSandbox.check` raises what failed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import anyio

from .._diagnosis import messages, suspension
from .._diagnosis.admission import RELEASE_FIELDS, job_changes
from .._diagnosis.admission_diff import job_differences
from .._diagnosis.finding import CheckStatus, join_some
from .._wire.manifests import CONTAINER, Manifests, build
from .._wire.program import Program
from ..errors import CassetteError, ConfigError, Forbidden, NetworkError, NotFound, SandboxError, ServerError
from ..kube.client import KubeClient
from ..kube.resources import CONFIG_MAPS, EVENTS, JOBS, PODS, SELF_SUBJECT_ACCESS_REVIEWS, Resource
from ..kube.retry import retried
from ..kube.status import RequestInfo, rule_hint
from ..settings import Settings

logger = logging.getLogger(__name__)

CHECK_TIMEOUT = 30.0
"""How long all checks together may take, in seconds."""


@dataclass(frozen=True)
class Permission:
    """A permission that runs use. `without` is the effect if it is missing; optional ones cost only details."""

    verb: str
    resource: Resource
    without: str
    subresource: str | None = None
    optional: bool = False

    def __str__(self) -> str:
        name = f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural
        return f"{self.verb} {name}"


_PERMISSIONS = (
    Permission("create", JOBS, "no program can run"),
    Permission("list", PODS, "the start and the end of a program cannot be seen"),
    Permission("get", PODS, "the output of a program cannot be read", subresource="log"),
    Permission("get", JOBS, "a run is lost if the response to its creation is lost"),
    Permission("delete", JOBS, "each Job stays until its deadline"),
    Permission("watch", PODS, "the pods are listed every one or two seconds instead", optional=True),
    Permission("list", EVENTS, "errors of sandboxes that do not start have less detail", optional=True),
)
_CONFIG_MAP_PERMISSIONS = (Permission("create", CONFIG_MAPS, "no program can run"),)
_ATTACH_PERMISSIONS = (
    Permission("get", PODS, "no program can be sent to a waiting pod", subresource="attach"),
    Permission("create", PODS, "no program can be sent to a waiting pod", subresource="attach"),
)


def permissions(*, attach: bool = False, warm: bool = False) -> tuple[Permission, ...]:
    """Return the permissions of runs, with the delivery ``attach`` or not, and with warm pods or not.

    Only ``gke-sandbox clean`` needs another one.
    """
    return (
        *_PERMISSIONS,
        *(() if attach else _CONFIG_MAP_PERMISSIONS),
        *(_ATTACH_PERMISSIONS if attach or warm else ()),
    )


@dataclass(frozen=True)
class Check:
    """The result of one check. `error` is the error behind a failure, if there is one."""

    name: str
    status: CheckStatus
    message: str = ""
    hint: str = ""
    error: SandboxError | None = None


def check_failure(checks: Sequence[Check]) -> ConfigError | None:
    """Return one error with all failures and their hints, or None if there is no failure."""
    failures = [check for check in checks if check.status == "failure"]
    if not failures:
        return None
    listed = "; ".join(f"{check.name}: {check.message}" for check in failures)
    count = f"{len(failures)} checks failed" if len(failures) > 1 else "a check failed"
    hint = " ".join(dict.fromkeys(check.hint for check in failures if check.hint))
    error = ConfigError(f"no program can run as configured, {count}: {listed}", hint=hint)
    error.__cause__ = next((check.error for check in failures if check.error is not None), None)
    return error


async def check(client: KubeClient, settings: Settings, *, session: str, name: str, warm: bool) -> None:
    """Log the warnings of `Preflight`, and raise its failures as one error: `ConfigError`."""
    preflight = Preflight(client, settings, session, name, warm)
    await preflight.run()
    for each in preflight.checks:
        if each.status == "warning":
            logger.warning("%s: %s. %s", each.name, each.message, each.hint)
    error = check_failure(preflight.checks)
    if error is not None:
        raise error


class Preflight:
    """The checks, in the order of the requests, and the Job that the server returned for the dry run.

    `name` is that of the Job in the dry run, `warm` whether there are warm pods. If the cluster does not respond,
    that is the only result. Raises `SpecError` if the settings allow no Job.
    """

    def __init__(self, client: KubeClient, settings: Settings, session: str, name: str, warm: bool) -> None:
        self._client = client
        self._settings = settings
        self._name = name
        self._warm = warm
        self._denied: set[Permission] = set()
        self.checks: list[Check] = []
        self.manifests = build(settings, Program(code="pass"), name=name, session=session)
        """The manifests of the dry run."""
        self.job: dict[str, Any] | None = None
        """The Job as admission returned it. None if the server did not accept it."""

    async def run(self) -> None:
        """Run the checks, for `CHECK_TIMEOUT` seconds at most. Raises `CassetteError` in replays."""
        with anyio.move_on_after(CHECK_TIMEOUT) as scope:
            await self._run()
        if scope.cancelled_caught:
            call = RequestInfo("create", "POST", JOBS, self._settings.namespace)
            message = f"no complete response within {CHECK_TIMEOUT:g} s"
            hint = "The API server or a proxy may be overloaded, or an admission webhook may not respond."
            error = NetworkError(message, sent=True, request=str(call), hint=hint)
            self._fail("cluster", error)

    async def _run(self) -> None:
        # The first request shows whether the cluster responds at all.
        first, *others = permissions(attach=self._settings.delivery == "attach", warm=self._warm)
        try:
            allowed = await self._review(first)
        except Forbidden as error:
            # Unusual: by default, every authenticated user may do this.
            self.checks.append(
                Check("permissions", "warning", f"cannot be checked: {error.message}", error.hint, error)
            )
        except NotFound as error:
            hint = "This is not the address of a Kubernetes API server."
            self.checks.append(Check("cluster", "failure", error.message, hint, error))
            return
        except SandboxError as error:
            self._fail("cluster", error)
            return
        else:
            self.checks.append(Check("cluster", "ok"))
            self._add_permission(first, allowed)
            await self._check_permissions(others)
        if first not in self._denied:
            await self._check_dry_run()

    async def _check_permissions(self, permissions: Sequence[Permission]) -> None:
        found: dict[Permission, bool | SandboxError] = {}

        async def review(permission: Permission) -> None:
            try:
                found[permission] = await self._review(permission)
            except SandboxError as error:
                found[permission] = error

        async with anyio.create_task_group() as tasks:
            for permission in permissions:
                tasks.start_soon(review, permission)
        for permission in permissions:
            result = found[permission]
            if isinstance(result, CassetteError):
                raise result
            if isinstance(result, SandboxError):
                self._fail(f"permission to {permission}", result)
            else:
                self._add_permission(permission, result)

    async def _review(self, permission: Permission) -> bool:
        """Return whether the server allows this permission. Raises `SandboxError`."""
        # https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
        attributes = {
            "namespace": self._settings.namespace,
            "verb": permission.verb,
            "group": permission.resource.group,
            "resource": permission.resource.plural,
            "subresource": permission.subresource or "",
        }
        review = SELF_SUBJECT_ACCESS_REVIEWS
        body = {"apiVersion": review.api_version, "kind": review.kind, "spec": {"resourceAttributes": attributes}}
        response = await self._create(review, None, body)
        status = response.get("status")
        allowed = status.get("allowed") if isinstance(status, dict) else None
        if not isinstance(allowed, bool):
            call = RequestInfo("create", "POST", review)
            raise ServerError(f"{call}: the response has no result", code=201, reason="", request=str(call))
        return allowed

    async def _check_dry_run(self) -> None:
        manifests = self.manifests
        try:
            self.job = job = await self._create(JOBS, self._settings.namespace, manifests.job, dry_run=True)
        except SandboxError as error:
            is_namespace = isinstance(error, NotFound)
            self._fail("namespace" if is_namespace else "dry run of the Job", messages.rejected(error, self._name))
            return
        self.checks.append(Check("namespace", "ok"))
        self._compare(manifests, job)
        if manifests.delivery == "attach" or not self._denied.isdisjoint(_CONFIG_MAP_PERMISSIONS):
            return
        uid = (job.get("metadata") or {}).get("uid") or "dry-run"
        try:
            await self._create(CONFIG_MAPS, self._settings.namespace, manifests.config_map(uid), dry_run=True)
        except SandboxError as error:
            self._fail("dry run of the ConfigMap", messages.rejected(error, self._name))
        else:
            self.checks.append(Check("dry run of the ConfigMap", "ok", "accepted"))

    def _compare(self, manifests: Manifests, job: dict[str, Any]) -> None:
        """Compare the Job with what admission returned."""
        name = "dry run of the Job"
        accepted = {*self._settings.accept_admission_changes}
        if self._client.replays:
            accepted |= RELEASE_FIELDS
        changes = [each for each in job_changes(manifests.job, job, CONTAINER) if each.field not in accepted]
        if changes:
            self._fail(name, messages.unsafe_admission_change(changes, self._name, ""))
        elif (waits := suspension(job)) is not None and waits.cause is not None:
            self.checks.append(Check(name, "warning", waits.cause.summary, waits.cause.hint))
        else:
            found = job_differences(manifests.job, job)
            changed = f"accepted; admission changed {join_some(found, separator='; ')}"
            self.checks.append(Check(name, "ok", changed if found else "accepted as sent"))

    async def _create(
        self, resource: Resource, namespace: str | None, body: dict[str, Any], *, dry_run: bool = False
    ) -> dict[str, Any]:
        validation: Literal["Strict"] | None = "Strict" if dry_run else None
        send = partial(
            self._client.create, resource, namespace, body, field_validation=validation, dry_run=dry_run
        )
        return await retried(send)

    # -- results ------------------------------------------------------------------------------------------

    def _add_permission(self, permission: Permission, allowed: bool) -> None:
        name = f"permission to {permission}"
        if allowed:
            self.checks.append(Check(name, "ok"))
            return
        self._denied.add(permission)
        call = RequestInfo(
            permission.verb, "", permission.resource, self._settings.namespace, None, permission.subresource
        )
        status: CheckStatus = "warning" if permission.optional else "failure"
        self.checks.append(
            Check(name, status, f"missing; {permission.without}", rule_hint(call, f'"{permission.verb}"'))
        )

    def _fail(self, name: str, error: SandboxError) -> None:
        """Add a failure. Raise the error instead if it is of a cassette."""
        if isinstance(error, CassetteError):
            raise error
        self.checks.append(Check(name, "failure", error.message, error.hint, error))

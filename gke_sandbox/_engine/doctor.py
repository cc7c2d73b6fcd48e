"""The checks of ``gke-sandbox doctor``: those of `preflight`, and everything else that a cluster shows.

Nothing is created. What this identity may not read is skipped, with the rule that would allow it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from .._diagnosis.finding import Finding, mapping, mappings
from .._diagnosis.nodes import nodes_finding
from .._diagnosis.policies import namespace_finding, network_policies_finding
from .._diagnosis.probe_report import probe_findings
from .._diagnosis.room import limit_ranges_finding, quotas_finding
from ..errors import CassetteError, Forbidden, NotFound, SandboxError
from ..kube.client import KubeClient
from ..kube.resources import (
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    RESOURCE_QUOTAS,
    RUNTIME_CLASSES,
    SELF_SUBJECT_REVIEWS,
    Resource,
)
from ..kube.retry import retried
from ..result import ExecutionResult
from ..settings import Settings
from . import orphans
from .orphans import PAGE_SIZE
from .preflight import Check, Preflight

MIN_VERSION, MIN_VERSION_ATTACH = (1, 27), (1, 30)
SLOW_ROUND_TRIP = 0.5
"""Seconds. From 0.1 s on, programs are passed in a volume, which starts 0.3 s later."""
MAX_CLOCK_DIFFERENCE = 30.0
"""Seconds. Tokens and certificates are valid for some minutes more; ages are computed with the server's clock."""
_ROUND_TRIPS = 3


class Doctor:
    """Runs the checks, one after the other; `checks` are their results."""

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        *,
        session: str,
        name: str,
        warm: bool,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._settings = settings
        self._attaches = warm or settings.delivery == "attach"
        self._now = now
        self._preflight = Preflight(client, settings, session, name, warm)
        self._spec: dict[str, Any] = {}
        self._labels: dict[str, str] = {}
        self.checks: list[Check] = []

    async def run(self) -> None:
        """Run all checks. If the cluster does not respond, that is the only result."""
        if not await self._check_server():
            return
        self._check_clock()
        await self._check_identity()
        await self._preflight.run()
        self.checks += [
            check
            for check in self._preflight.checks
            if check.status != "ok" or check.name not in ("cluster", "namespace")
        ]
        self._read_job()
        await self._check_namespace()
        await self._check_objects()

    def _read_job(self) -> None:
        """Read the pod's spec and labels from the Job as admission returned it, or else as it was built."""
        job = self._preflight.job or self._preflight.manifests.job
        template = mapping(mapping(job.get("spec")).get("template"))
        self._spec = dict(mapping(template.get("spec")))
        self._labels = dict(mapping(mapping(template.get("metadata")).get("labels")))

    # -- the server ---------------------------------------------------------------------------------------

    async def _check_server(self) -> bool:
        """Check the address, TLS, the round trip and the version. Return whether the server responds."""
        config = self._client.config
        try:
            version = await retried(self._client.version)
            for _ in range(_ROUND_TRIPS):
                await retried(self._client.version)
        except CassetteError:
            raise
        except SandboxError as error:
            self._add("cluster", Finding("failure", error.message, error.hint), error)
            return False
        self._add("cluster", Finding("ok", f"{config.source}: {config.address}"))
        self._check_connection()
        self._check_version(str(version.get("gitVersion") or ""))
        return True

    def _check_connection(self) -> None:
        config, seconds = self._client.config, self._client.round_trip
        if seconds is None:
            return
        text = f"round trip {seconds * 1000:.0f} ms"
        if not config.secure:
            hint = "Use an https address, except through kubectl proxy on this machine."
            self._add("connection", Finding("warning", f"no TLS, so no credentials are sent; {text}", hint))
        elif config.insecure_skip_tls_verify:
            hint = "Replace insecure-skip-tls-verify in the kubeconfig by certificate-authority-data."
            self._add("connection", Finding("warning", f"the server's certificate is not verified; {text}", hint))
        elif seconds > SLOW_ROUND_TRIP:
            hint = "Run this program closer to the cluster, best in a pod of it."
            self._add("connection", Finding("warning", f"slow: {text}", hint))
        else:
            self._add("connection", Finding("ok", f"TLS, verified with {config.ca_source}; {text}"))

    def _check_version(self, text: str) -> None:
        least = MIN_VERSION_ATTACH if self._attaches else MIN_VERSION
        found = re.match(r"v?(\d+)\.(\d+)", text)
        if found is None:
            hint = f"Check that the version is {least[0]}.{least[1]} or newer: kubectl version."
            self._add("version", Finding("warning", f"not recognized: {text[:80]!r}", hint))
        elif (int(found[1]), int(found[2])) < least:
            purpose = " for warm pods and the delivery attach" if least == MIN_VERSION_ATTACH else ""
            message = f"{text[:80]} is too old: the minimum{purpose} is {least[0]}.{least[1]}"
            self._add("version", Finding("failure", message, "Upgrade the control plane."))
        else:
            self._add("version", Finding("ok", f"Kubernetes {text[:80]}"))

    def _check_clock(self) -> None:
        server = self._client.server_time
        if server is None:
            hint = "A proxy may remove it. Ages are computed with the clock of this machine."
            self._add("clock", Finding("warning", "the server sends no Date header", hint))
            return
        difference = (self._now() - server).total_seconds()
        side = "ahead of" if difference > 0 else "behind"
        # The header has no fractions of a second.
        if abs(difference) > MAX_CLOCK_DIFFERENCE:
            message = f"the clock of this machine is {abs(difference):.0f} s {side} the server's"
            self._add(
                "clock", Finding("warning", message, "Synchronize it: certificates and tokens depend on it.")
            )
        else:
            text = "equals" if abs(difference) < 2 else f"{abs(difference):.0f} s {side}"
            self._add("clock", Finding("ok", f"{text} the server's"))

    async def _check_identity(self) -> None:
        review = SELF_SUBJECT_REVIEWS
        body = {"apiVersion": review.api_version, "kind": review.kind}
        with self._reading("identity", "create selfsubjectreviews") as add:
            try:
                response = await retried(lambda: self._client.create(review, None, body))
            except NotFound:
                add(Finding("skipped", "unknown: this server has no SelfSubjectReview (Kubernetes 1.28 has)"))
                return
            user = mapping(mapping(response.get("status")).get("userInfo"))
            groups = ", ".join(str(each) for each in user.get("groups") or ())
            name = str(user.get("username") or "unknown")
            text = f"{name} ({groups})" if groups else name
            if name == "system:anonymous":
                text += ": no credentials were sent or accepted"
                add(Finding("failure", text, "Log in, or use --token."))
            else:
                add(Finding("ok", text))

    # -- the objects --------------------------------------------------------------------------------------

    async def _check_namespace(self) -> None:
        namespace = self._settings.namespace
        if any(check.name == "namespace" and check.status == "failure" for check in self.checks):
            return
        with self._reading("namespace", "get namespaces") as add:
            try:
                add(namespace_finding(await self._get(NAMESPACES, namespace, namespace), self._spec))
            except NotFound as error:
                add(Finding("failure", f"{namespace} does not exist", error.hint))

    async def _check_runtime_class(self) -> dict[str, Any]:
        """Check that the RuntimeClass exists. Return it, or an empty object if it is not known."""
        name = self._spec.get("runtimeClassName")
        if not name:
            message = "none: the programs run with the default runtime of the nodes, which may isolate less"
            self._add("RuntimeClass", Finding("warning", message, "Use runtime_class_name gvisor."))
            return {}
        with self._reading("RuntimeClass", "get runtimeclasses") as add:
            try:
                found = await self._get(RUNTIME_CLASSES, None, name)
            except NotFound:
                hint = (
                    "GKE creates gvisor with the first node pool that has --sandbox=type=gvisor, and always in "
                    "Autopilot. Elsewhere install gVisor (https://gvisor.dev/docs/user_guide/containerd/), then: "
                    'kubectl create -f - <<< \'{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", '
                    f'"metadata": {{"name": "{name}"}}, "handler": "runsc"}}\''
                )
                add(Finding("failure", f"{name} does not exist", hint))
            else:
                add(Finding("ok", f"{name}, handler {found.get('handler')}"))
                return found
        return {}

    async def _check_objects(self) -> None:
        namespace, spec = self._settings.namespace, self._spec
        runtime_class = await self._check_runtime_class()
        with self._reading("nodes", "list nodes") as add:
            add(nodes_finding(await self._list(NODES, None), spec, runtime_class))
        with self._reading("quota", "list resourcequotas") as add:
            has_config_map = self._preflight.manifests.delivery != "attach"
            quotas = await self._list(RESOURCE_QUOTAS, namespace)
            add(quotas_finding(quotas, spec, namespace, config_map=has_config_map))
        with self._reading("LimitRange", "list limitranges") as add:
            add(limit_ranges_finding(await self._list(LIMIT_RANGES, namespace), spec, namespace))
        with self._reading("NetworkPolicy", "list networkpolicies") as add:
            policies = await self._list(NETWORK_POLICIES, namespace)
            add(network_policies_finding(policies, self._labels, namespace))
        with self._reading("leftovers", "list jobs") as add:
            found = await orphans.find(self._client, namespace, self._now())
            over = [job for job in found if not job.may_be_in_flight]
            active = f"active: {len(found) - len(over)}, see gke-sandbox ps"
            if over:
                hint = f"Delete them: gke-sandbox clean --older-than 10m --namespace {namespace}."
                add(Finding("warning", f"Jobs of earlier runs: {len(over)}; {active}", hint))
            else:
                add(Finding("ok", f"none; {active}" if found else "none"))

    # -- requests and results -----------------------------------------------------------------------------

    @contextmanager
    def _reading(self, name: str, permission: str) -> Iterator[Callable[[Finding], None]]:
        """Return the function that adds the finding. Skip the check if the permission is missing."""
        try:
            yield partial(self._add, name)
        except CassetteError:
            raise
        except Forbidden as error:
            self._add(name, Finding("skipped", f"unknown: no permission to {permission}", error.hint))
        except SandboxError as error:
            self._add(name, Finding("warning", f"unknown: {error.message}", error.hint), error)

    async def _get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        return await retried(lambda: self._client.get(resource, namespace, name))

    async def _list(self, resource: Resource, namespace: str | None) -> list[Any]:
        items: list[Any] = []
        page: str | None = None
        while True:
            send = partial(self._client.list, resource, namespace, limit=PAGE_SIZE, continue_=page)
            response = await retried(send)
            items += mappings(response.get("items"))
            page = mapping(response.get("metadata")).get("continue")
            if not page:
                return items

    def _add(self, name: str, finding: Finding, error: SandboxError | None = None) -> None:
        self.checks.append(Check(name, finding.status, finding.message, finding.hint, error))


def inside_checks(outcome: ExecutionResult | SandboxError, settings: Settings) -> list[Check]:
    """Return the checks of a run of `_wire.probe`: whether it succeeded, and what it saw."""
    if isinstance(outcome, SandboxError):
        return [Check("run", "failure", outcome.message, outcome.hint, outcome)]
    if not outcome.ok:
        detail = outcome.message or outcome.stderr.strip()[-300:]
        hint = "Run a program with the same options to see whether it fails, too: gke-sandbox run -c 'print(1)'."
        return [Check("run", "failure", f"the probe {outcome.status}: {detail}", hint)]
    timings = outcome.timings
    message = f"{timings.returned:.2f} s, of which {timings.started or 0.0:.2f} s until the container started"
    expected = {name: getattr(settings, name) for name in ("run_as_user", "run_as_group", "memory_limit")}
    expected["changed_limits"] = outcome.changed_limits
    return [
        Check("run", "ok", message),
        *(
            Check(name, finding.status, finding.message, finding.hint)
            for name, finding in probe_findings(outcome.stdout, expected).items()
        ),
    ]

"""Causes of a Job, ConfigMap or pod that admission rejects: see `causes`, which has the whole table. Pure.

A Job and a ConfigMap are rejected in the response to their POST, a pod in an Event of its Job.
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

import re

from ..kube.quantity import Quantity
from .patterns import FailureCause, Pattern, permanent, temporary
from .pod_resources import read_quantities

_QUOTA = re.compile(r"exceeded quota: .*, requested: (?P<requested>\S+), used: \S+, limited: (?P<limited>\S+)")


def _is_quota_too_small(message: str) -> bool:
    """Return whether more of a resource is requested than its quota allows in total."""
    # https://github.com/kubernetes/apiserver/blob/master/pkg/admission/plugin/resourcequota/controller.go
    found = _QUOTA.search(message)
    if found is None:
        return False
    limited = _amounts(found["limited"])
    requested = _amounts(found["requested"])
    return any(amount.nano > limited[name].nano for name, amount in requested.items() if name in limited)


def _amounts(text: str) -> dict[str, Quantity]:
    """Return the amount of each resource in ``cpu=1,memory=2Gi``; omit those that cannot be parsed."""
    entries = (entry.partition("=") for entry in text.split(","))
    return read_quantities({name: value for name, _, value in entries})


REJECTION_CAUSES: tuple[FailureCause, ...] = (
    permanent(
        "pod_security",
        "the namespace's Pod Security standard refuses the pod",
        "The message names the field. Pods of this library satisfy `restricted`, so a webhook or a policy has"
        " probably changed them.",
        Pattern("admission", "", "violates PodSecurity"),
    ),
    permanent(
        "quota_too_small",
        "the namespace's quota is smaller than one run needs",
        "Raise the ResourceQuota that the message names, or request less (cpu_request, memory_request, cpu_limit, "
        "memory_limit).",
        Pattern("admission", "", "exceeded quota", _is_quota_too_small),
    ),
    temporary(
        "quota_exceeded",
        "the namespace's quota is used up",
        "Wait until other runs have ended, or raise the ResourceQuota that the message names.",
        Pattern("admission", "", "exceeded quota"),
    ),
    temporary(
        "quota_not_counted",
        "the server has not counted yet how much of the namespace's quota is used",
        "This is normal just after a ResourceQuota was created. If it persists, check the quota that the message "
        "names (kubectl describe resourcequota).",
        Pattern("admission", "", "status unknown for quota"),
    ),
    permanent(
        "quota_wants_more",
        "the namespace's quota requires a limit that the pod does not have",
        "The message names what the ResourceQuota requires. A LimitRange can set a default.",
        Pattern("admission", "", "failed quota"),
    ),
    permanent(
        "runtime_class_missing",
        "the cluster does not have this RuntimeClass",
        "On GKE, create a node pool with GKE Sandbox. Elsewhere, install gVisor and its RuntimeClass, or use "
        "another one (runtime_class_name).",
        Pattern("admission", "", "RuntimeClass .* not found"),
    ),
    permanent(
        "limit_range",
        "the namespace's LimitRange refuses the pod's requests or limits",
        "Change cpu_request, cpu_limit, memory_request or memory_limit to what the message allows.",
        Pattern("admission", "", r"(maximum|minimum) \S+ usage per|limit to request ratio"),
    ),
    temporary(
        "webhook_failed",
        "an admission webhook of the cluster could not be called",
        "The webhook's service may be down, or restarting. Ask the cluster's administrator.",
        Pattern("admission", "", "failed calling webhook"),
    ),
    permanent(
        "webhook_denied",
        "an admission policy of the cluster refuses the pod or its Job",
        "The message is from the policy. Ask the cluster's administrator.",
        Pattern(
            "admission",
            "",
            "admission webhook|denied the request|ValidatingAdmissionPolicy '[^']*' .*denied request",
        ),
    ),
    permanent(
        "service_account_missing",
        "the service account does not exist in the namespace",
        "Create it, or use another one (service_account_name).",
        Pattern("admission", "", r"service ?account .*not found|looking up service account"),
    ),
    permanent(
        "priority_class_missing",
        "the PriorityClass does not exist",
        "Create it, or use another one (priority_class_name).",
        Pattern("admission", "", "no PriorityClass with name"),
    ),
    permanent(
        "namespace_terminating",
        "the namespace is being deleted",
        "Use another namespace, or create it again when it is gone.",
        Pattern("admission", "", "because it is being terminated"),
    ),
    temporary(
        "job_suspended",
        "the Job is suspended: a queue such as Kueue has not admitted it yet",
        "It starts when the queue admits it: wait longer (startup_timeout), or ask for room in the queue. Its"
        " label kueue.x-k8s.io/queue-name (labels) must name a LocalQueue of the namespace, or it never starts.",
        Pattern("admission", "Suspended"),
    ),
    temporary(
        "server_starting",
        "the API server has just started, and is not ready",
        "Run it again later. If it persists, ask the cluster's administrator.",
        Pattern("admission", "", "not yet ready to handle request"),
    ),
    temporary(
        "pod_refused",
        "the API server refuses the pod",
        "The message is from the API server. The Job controller retries.",
        Pattern("admission"),
    ),
)

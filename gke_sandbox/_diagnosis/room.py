"""Compare a run with the ResourceQuotas and LimitRanges of its namespace. Pure.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
https://kubernetes.io/docs/concepts/policy/limit-range/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..kube.quantity import Quantity, parse_quantity
from .finding import Finding, is_selected, join_some, mapping, mappings, object_name
from .pod_resources import container_resources, pod_resources, read_quantities

__all__ = ["limit_ranges_finding", "quotas_finding"]

_OTHER_SCOPES = ("BestEffort", "Terminating", "CrossNamespacePodAffinity")
"""Scopes that no pod of this package has: it has requests, and its deadline is that of the Job."""
_RAISE = "Raise it: kubectl --namespace {namespace} edit {kind} {name}."


def quotas_finding(
    quotas: Sequence[Mapping[str, Any]], spec: Mapping[str, Any], namespace: str, *, config_map: bool
) -> Finding:
    """Return how many more runs with this pod the quotas allow. `config_map`: whether a run has one."""
    quotas = [quota for quota in quotas if _applies(quota, spec)]
    if not quotas:
        return Finding("ok", "no ResourceQuota limits the runs")
    needs = _needs(spec, config_map=config_map)
    fewest: tuple[int, str, str] | None = None
    for quota in quotas:
        name = object_name(quota)
        status = mapping(quota.get("status"))
        hard = read_quantities(mapping(quota.get("spec")).get("hard"))
        used = read_quantities(status.get("used"))
        for resource, need in needs.items():
            if resource not in hard or not need.nano:
                continue
            taken = used[resource].nano if resource in used else 0
            text = f"{resource} of {name}: {Quantity(taken, hard[resource].format)} of {hard[resource]} in use"
            if need.nano > hard[resource].nano:
                return Finding(
                    "failure",
                    f"{resource} of {name}: the quota is {hard[resource]}, and one run needs {need}",
                    _RAISE.format(namespace=namespace, kind="resourcequota", name=name),
                )
            runs = max(hard[resource].nano - taken, 0) // need.nano
            if fewest is None or runs < fewest[0]:
                fewest = runs, text, name
    if fewest is None:
        return Finding("ok", "no ResourceQuota limits the runs")
    runs, text, name = fewest
    if runs:
        return Finding("ok", f"room for {runs:,} more run{'s' * (runs != 1)} ({text})")
    hint = f"Wait until other pods end, see gke-sandbox ps, or run gke-sandbox clean. {_RAISE}"
    hint = hint.format(namespace=namespace, kind="resourcequota", name=name)
    return Finding("warning", f"no room now: {text}", hint)


def limit_ranges_finding(ranges: Sequence[Mapping[str, Any]], spec: Mapping[str, Any], namespace: str) -> Finding:
    """Return whether the containers and the pod respect the LimitRanges."""
    if not ranges:
        return Finding("ok", "no LimitRange limits the pod")
    problems = [(object_name(each), problem) for each in ranges for problem in _problems(each, spec)]
    if not problems:
        return Finding("ok", f"the pod respects {join_some([object_name(each) for each in ranges])}")
    name = problems[0][0]
    hint = "Change cpu_limit, memory_limit or ephemeral_storage_limit, or their requests. " + _RAISE.format(
        namespace=namespace, kind="limitrange", name=name
    )
    return Finding("failure", "; ".join(f"LimitRange {name}: {problem}" for name, problem in problems), hint)


def _applies(quota: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    quota_spec = mapping(quota.get("spec"))
    scopes: list[Mapping[str, Any]] = [
        {"scopeName": scope, "operator": "Exists"} for scope in quota_spec.get("scopes") or ()
    ]
    scopes += mappings(mapping(quota_spec.get("scopeSelector")).get("matchExpressions"))
    priority_class = spec.get("priorityClassName") or None
    return not any(
        each.get("scopeName") in _OTHER_SCOPES
        or (each.get("scopeName") == "PriorityClass" and not is_selected(each, priority_class))
        for each in scopes
    )


def _needs(spec: Mapping[str, Any], *, config_map: bool) -> dict[str, Quantity]:
    one = parse_quantity("1")
    needs = dict.fromkeys(("pods", "count/pods", "count/jobs.batch"), one)
    if config_map:
        needs.update(dict.fromkeys(("configmaps", "count/configmaps"), one))
    for name, amount in pod_resources(spec, "requests").items():
        needs[f"requests.{name}"] = needs[name] = amount
    for name, amount in pod_resources(spec, "limits").items():
        needs[f"limits.{name}"] = amount
    return needs


def _problems(limit_range: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[str]:
    for item in mappings(mapping(limit_range.get("spec")).get("limits")):
        if item.get("type") == "Container":
            for container in [*mappings(spec.get("initContainers")), *mappings(spec.get("containers"))]:
                requests = container_resources(container, "requests")
                limits = container_resources(container, "limits")
                yield from _violations(item, requests, limits, f"container {container.get('name')}")
        elif item.get("type") == "Pod":
            yield from _violations(item, pod_resources(spec, "requests"), pod_resources(spec, "limits"), "pod")


def _violations(
    item: Mapping[str, Any], requests: Mapping[str, Quantity], limits: Mapping[str, Quantity], what: str
) -> Iterator[str]:
    for name, most in read_quantities(item.get("max")).items():
        if name in limits and limits[name].nano > most.nano:
            yield (
                f"the maximum {name} of a {item['type']} is {most}, and the limit of the {what} is {limits[name]}"
            )
    for name, least in read_quantities(item.get("min")).items():
        if name in requests and requests[name].nano < least.nano:
            yield (
                f"the minimum {name} of a {item['type']} is {least}, and the request of the {what} is "
                f"{requests[name]}"
            )
    for name, ratio in read_quantities(item.get("maxLimitRequestRatio")).items():
        if name in requests and name in limits and requests[name].nano:
            found = limits[name].nano / requests[name].nano
            if found > ratio.nano / 10**9:
                yield (
                    f"the maximum ratio of limit to request of {name} is {ratio}, and that of the {what} is "
                    f"{found:g}"
                )

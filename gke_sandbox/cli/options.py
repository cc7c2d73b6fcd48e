"""The options that say where a program runs and how: the cluster, and every field of `settings.Settings`."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import TYPE_CHECKING, Any

from . import input_files, parsing
from .parsing import UsageError

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..kube.config.types import ConnectionOverrides

#: The options that name a real cluster, or say who one is there, by their destinations.
_CLUSTER = ("kubeconfig", "context", "gke", "endpoint", "server", "token", "impersonate", "impersonate_groups")
_MAPPINGS = ("node_selector", "labels", "annotations")


def _setting(group: argparse._ArgumentGroup, *names: str, dest: str, about: str, **more: Any) -> None:
    """An option for the setting `dest`: not set unless it is given; the help shows the setting's own default."""
    from ..settings import Settings

    default = next(field.default for field in dataclasses.fields(Settings) if field.name == dest)
    if isinstance(default, (str, int, float)) and dest != "namespace":
        about += f" (default: {default:g})" if isinstance(default, float) else f" (default: {default})"
    more.setdefault("type", parsing.text)
    group.add_argument(*names, dest=dest, default=argparse.SUPPRESS, help=about, **more)


def add_environment(group: argparse._ArgumentGroup) -> None:
    """``--env``."""
    _setting(
        group,
        *("-e", "--env"),
        dest="env",
        action="append",
        type=parsing.variable,
        metavar="K[=V]",
        about="set an environment variable; K alone takes its value from the environment here (repeatable)",
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the cluster (by default: in a pod, its own; else as kubectl finds it)")
    group.add_argument(
        "--kubeconfig", metavar="PATH", help="kubeconfig file (default: $KUBECONFIG, ~/.kube/config)"
    )
    group.add_argument("--context", type=parsing.text, metavar="NAME", help="context of the kubeconfig")
    group.add_argument(
        "--gke",
        type=parsing.text,
        metavar="PROJECT/LOCATION/NAME",
        help="GKE cluster, reached with Google's Application Default Credentials; no kubeconfig",
    )
    group.add_argument(
        "--gke-endpoint",
        dest="endpoint",
        choices=("auto", "ip", "private", "dns"),
        help="with --gke: which of its addresses; auto takes the IP address, or the DNS name where IP addresses "
        "are switched off (default: auto)",
    )
    group.add_argument(
        "--server", type=parsing.text, metavar="URL", help="address of the API server, in the kubeconfig's place"
    )
    group.add_argument(
        "--token",
        type=parsing.text,
        metavar="TOKEN",
        help="bearer token, in the place of the user's credentials (others on this machine can see it)",
    )
    group.add_argument(
        "--as", dest="impersonate", type=parsing.text, metavar="USER", help="act as this user (impersonation)"
    )
    group.add_argument(
        "--as-group",
        dest="impersonate_groups",
        action="append",
        type=parsing.text,
        metavar="GROUP",
        help="act as a member of this group (repeatable)",
    )
    _setting(
        group,
        *("-n", "--namespace"),
        dest="namespace",
        metavar="NAME",
        about="namespace (default: the context's or the pod's own, else default)",
    )
    group.add_argument("--local", action="store_true", help="no cluster: run on this machine, in the embedded one")
    group.add_argument(
        "--isolation",
        choices=("auto", "gvisor", "process"),
        help="with --local: gvisor needs runsc; process isolates nothing; auto takes gvisor if there is runsc "
        "(default: auto)",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits (times: 90, 90s, 5m, 2h, 1d; resources: as Kubernetes writes them)")
    _setting(
        group,
        "--timeout",
        dest="timeout",
        type=parsing.seconds,
        metavar="TIME",
        about="the program is killed after this time",
    )
    _setting(
        group,
        "--startup-timeout",
        dest="startup_timeout",
        type=parsing.seconds,
        metavar="TIME",
        about="give up if the program has not started after this time",
    )
    _setting(group, "--cpu", dest="cpu_limit", metavar="CPU", about="CPU limit")
    _setting(group, "--cpu-request", dest="cpu_request", metavar="CPU", about="CPU request, at most the limit")
    _setting(group, "--memory", dest="memory_limit", metavar="SIZE", about="memory limit")
    _setting(
        group, "--memory-request", dest="memory_request", metavar="SIZE", about="memory request, at most the limit"
    )
    _setting(
        group, "--ephemeral-storage", dest="ephemeral_storage_limit", metavar="SIZE", about="limit of disk space"
    )
    _setting(
        group,
        "--ephemeral-storage-request",
        dest="ephemeral_storage_request",
        metavar="SIZE",
        about="request of disk space, at most the limit",
    )
    _setting(
        group,
        "--tmp-size",
        dest="tmp_size",
        metavar="SIZE",
        about="size of the volume at /tmp, where there is one (see --delivery)",
    )
    _setting(
        group,
        "--max-output",
        dest="max_output_bytes",
        type=parsing.size,
        metavar="BYTES",
        about="take so much of stdout, and of stderr; drop the rest",
    )
    _setting(
        group,
        "--max-file-bytes",
        dest="max_file_bytes",
        type=parsing.size,
        metavar="BYTES",
        about="take so much of the files that the program made, together",
    )
    _setting(
        group,
        "--max-files",
        dest="max_files",
        type=parsing.number,
        metavar="N",
        about="take so many of the files that the program made",
    )


def add_pod(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the pod")
    _setting(group, "--image", dest="image", metavar="IMAGE", about="container image; needs python3")
    _setting(
        group,
        "--image-pull-policy",
        dest="image_pull_policy",
        choices=("Always", "IfNotPresent", "Never"),
        about="when a node pulls the image",
    )
    _setting(
        group,
        "--image-pull-secret",
        dest="image_pull_secrets",
        action="append",
        metavar="NAME",
        about="Secret for the image's registry (repeatable)",
    )
    _setting(group, "--runtime-class", dest="runtime_class_name", metavar="NAME", about="RuntimeClass")
    group.add_argument(
        "--no-runtime-class",
        dest="runtime_class_name",
        action="store_const",
        const=None,
        default=argparse.SUPPRESS,
        help="name no RuntimeClass: the cluster's default runtime, which may isolate less",
    )
    pairs = {"action": "append", "type": parsing.pair, "metavar": "K=V"}
    _setting(
        group, "--node-selector", dest="node_selector", about="only nodes with this label (repeatable)", **pairs
    )
    _setting(
        group,
        "--toleration",
        dest="tolerations",
        action="append",
        type=parsing.toleration,
        metavar="KEY[=VALUE][:EFFECT]",
        about="tolerate this taint too, beside that of GKE's gVisor nodes (repeatable)",
    )
    _setting(group, "--priority-class", dest="priority_class_name", metavar="NAME", about="PriorityClass")
    _setting(
        group,
        "--service-account",
        dest="service_account_name",
        metavar="NAME",
        about="service account (its token is not mounted)",
    )
    _setting(
        group,
        "--run-as-user",
        dest="run_as_user",
        type=parsing.number,
        metavar="UID",
        about="user of the program, not 0",
    )
    _setting(
        group,
        "--run-as-group",
        dest="run_as_group",
        type=parsing.number,
        metavar="GID",
        about="group of the program, not 0",
    )
    _setting(group, "--label", dest="labels", about="label on Job, pod and ConfigMap (repeatable)", **pairs)
    _setting(group, "--annotation", dest="annotations", about="annotation on Job and pod (repeatable)", **pairs)
    _setting(
        group,
        "--delivery",
        dest="delivery",
        choices=("auto", "env", "mount"),
        about="how the program enters the pod: by environment variables, which starts sooner, or by a volume",
    )
    _setting(
        group,
        "--ttl",
        dest="ttl_seconds_after_finished",
        type=parsing.whole_seconds,
        metavar="TIME",
        about="a finished Job that nobody could delete is gone after this time",
    )


# -- what was given ------------------------------------------------------------------------------------------


def cluster(given: argparse.Namespace) -> Cluster:
    """The cluster that the options name. Raises `UsageError` for options that exclude one another."""
    from ..cluster import Cluster

    named = cluster_options(given)
    if given.isolation is not None and not given.local:
        raise UsageError("--isolation goes with --local only")
    if given.local and named:
        raise UsageError(f"--local excludes {' and '.join(named)}")
    if given.endpoint is not None and given.gke is None:
        raise UsageError("--gke-endpoint goes with --gke only")
    if given.local:
        return Cluster.local(given.isolation or "auto")
    if given.gke is not None:
        others = [name for name in named if name in ("--kubeconfig", "--context", "--server")]
        if others:
            raise UsageError(f"--gke excludes {' and '.join(others)}")
        return _gke(given)
    if given.kubeconfig is not None or given.context is not None or given.server is not None:
        return Cluster.kubeconfig(given.kubeconfig, given.context, overrides=_overrides(given))
    return Cluster.auto(overrides=_overrides(given))


def cluster_options(given: argparse.Namespace) -> list[str]:
    """Which of the options that name a real cluster were given, as they are written."""
    written = {"endpoint": "--gke-endpoint", "impersonate": "--as", "impersonate_groups": "--as-group"}
    return [written.get(name, f"--{name}") for name in _CLUSTER if getattr(given, name) is not None]


def _gke(given: argparse.Namespace) -> Cluster:
    from ..cluster import Cluster
    from ..errors import ConfigError
    from ..kube.gke import parse_gke

    try:
        return Cluster.gke(*parse_gke(given.gke), endpoint=given.endpoint or "auto", overrides=_overrides(given))
    except ConfigError as error:
        raise UsageError(f"--gke: {error.message}", error.hint) from None


def _overrides(given: argparse.Namespace) -> ConnectionOverrides:
    from ..kube.config.types import ConnectionOverrides

    for option, value in (("--server", given.server), ("--token", given.token), ("--as", given.impersonate)):
        if value == "":
            raise UsageError(f"{option}: must not be empty")
    return ConnectionOverrides(
        server=given.server,
        token=given.token,
        user=given.impersonate,
        groups=tuple(given.impersonate_groups or ()),
    )


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, and what follows from them. Their values are not checked yet."""
    from ..settings import Settings

    found = {
        field.name: getattr(given, field.name) for field in dataclasses.fields(Settings) if field.name in given
    }
    if "env" in found:
        found["env"] = input_files.environment(found["env"], os.environ)
    for name in _MAPPINGS:
        if name in found:
            found[name] = dict(found[name])
    if "tolerations" in found:
        found["tolerations"] = [*Settings().tolerations, *found["tolerations"]]
    return found

"""The options for the program, the cluster and the fields of `settings.Settings`, shared by several commands."""

from __future__ import annotations

import argparse
import dataclasses
import os
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._setting_names import OPTIONS, SETTING_NAMES
from ..errors import ConfigError
from ..settings import Settings
from . import input_files, parsing
from .parsing import UsageError

if TYPE_CHECKING:
    from .._wire.program import Program
    from ..cluster import Cluster
    from ..kube.client import KubeClient
    from ..sandbox import AsyncSandbox

ENVIRONMENT = {
    "env": ("K[=V]", "set an environment variable; K alone copies the variable from this command"),
}
NAMESPACE = {
    "namespace": ("NAME", "use this namespace (default: that of the context or the pod, else default)"),
}
LIMITS = {
    "timeout": ("TIME", "kill the program after this time"),
    "startup_timeout": ("TIME", "give up if the program has not started after this time"),
    "cpu_limit": ("CPU", "limit the CPU"),
    "cpu_request": ("CPU", "reserve this much CPU"),
    "memory_limit": ("SIZE", "limit the memory"),
    "memory_request": ("SIZE", "reserve this much memory"),
    "ephemeral_storage_limit": ("SIZE", "limit the disk space"),
    "ephemeral_storage_request": ("SIZE", "reserve this much disk space"),
    "tmp_size": ("SIZE", "limit /tmp, if the program is passed in a volume (see --delivery)"),
    "max_output_bytes": ("BYTES", "keep at most this much of stdout, and of stderr"),
    "max_file_bytes": ("BYTES", "keep at most this much of all output files together"),
    "max_files": ("N", "keep at most this number of output files"),
}
POD = {
    "image": ("IMAGE", "run this container image, which must have python3"),
    "image_pull_policy": (None, "when to pull the image"),
    "image_pull_secrets": ("NAME", "pull the image with this Secret"),
    "runtime_class_name": ("NAME", "use this RuntimeClass"),
    "node_selector": ("K=V", "run on a node with this label"),
    "tolerations": ("KEY[=VALUE][:EFFECT]", "tolerate this taint, in addition to that of GKE's gVisor nodes"),
    "priority_class_name": ("NAME", "use this PriorityClass"),
    "service_account_name": ("NAME", "use this service account (its token is never mounted)"),
    "run_as_user": ("UID", "run the program as this user ID, not 0"),
    "run_as_group": ("GID", "run the program as this group ID, not 0"),
    "accept_admission_changes": ("FIELD", "accept an unsafe change of this field by mutating admission"),
    "labels": ("K=V", "add this label to the Job, pod and ConfigMap"),
    "annotations": ("K=V", "add this annotation to the Job and pod"),
    "delivery": (
        None,
        "pass the program in environment variables (env), a volume (mount) or over a connection (attach)",
    ),
    "ttl_seconds_after_finished": (
        "TIME",
        "have Kubernetes delete the finished Job after this time, if it still exists",
    ),
}
"""Metavar (None: the choices) and help of each setting's option, by group. The rest follows from `Settings`."""

_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
_TYPES = typing.get_type_hints(Settings)
_SHORT = {"env": "-e", "namespace": "-n"}
_CLUSTER: dict[str, dict[str, Any]] = {
    "--kubeconfig": {"metavar": "PATH", "help": "use this kubeconfig (default: $KUBECONFIG, else ~/.kube/config)"},
    "--context": {
        "type": parsing.text,
        "metavar": "NAME",
        "help": "use this context of the kubeconfig (default: its current context)",
    },
    "--gke": {
        "type": parsing.text,
        "metavar": "PROJECT/LOCATION/NAME",
        "help": "use this GKE cluster, with Application Default Credentials and without a kubeconfig",
    },
    "--gke-endpoint": {
        "choices": ("auto", "ip", "private", "dns"),
        "help": "use this endpoint of the --gke cluster; auto is ip, or dns if IP endpoints are disabled "
        "(default: auto)",
    },
    "--server": {"type": parsing.nonempty, "metavar": "URL", "help": "connect to this API server"},
    "--token": {
        "type": parsing.nonempty,
        "metavar": "TOKEN",
        "help": "use this bearer token; other users of this machine can see it",
    },
    "--as": {"type": parsing.nonempty, "metavar": "USER", "help": "impersonate this user"},
    "--as-group": {
        "action": "append",
        "type": parsing.nonempty,
        "metavar": "GROUP",
        "help": "impersonate this group (repeatable)",
    },
}
"""The options that name a real cluster or change the connection to it."""


def add_settings(
    group: argparse._ArgumentGroup, table: Mapping[str, tuple[str | None, str]], *, short: bool = True
) -> None:
    """Add the options of the settings in `table`, with their `short` names. An unused option sets nothing."""
    for setting, (metavar, about) in table.items():
        names = [name for name in (_SHORT.get(setting) if short else None, OPTIONS[setting]) if name]
        how: dict[str, Any] = _value_type(setting, _TYPES[setting])
        if how.get("action") == "append":
            about += " (repeatable)"
        default = _FIELDS[setting].default
        if isinstance(default, (str, int, float)) and setting != "namespace":
            about += f" (default: {_default_text(setting, default)})"
        group.add_argument(*names, dest=setting, default=argparse.SUPPRESS, help=about, metavar=metavar, **how)
        if setting == "runtime_class_name":
            group.add_argument(
                "--no-runtime-class",
                dest=setting,
                action="store_const",
                const=None,
                default=argparse.SUPPRESS,
                help="use the default runtime of the cluster, which may isolate less",
            )


def _value_type(setting: str, hint: Any) -> dict[str, Any]:
    """Return the arguments of ``add_argument`` that follow from the type and the unit of a setting."""
    unit = SETTING_NAMES[setting].unit
    special = {"env": parsing.variable, "tolerations": parsing.toleration}
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    if typing.get_origin(hint) is Mapping or setting in special:
        return {"type": special.get(setting, parsing.pair), "action": "append"}
    if typing.get_origin(hint) is not None and hint != (str | None):
        return {"type": parsing.text, "action": "append"}
    if hint is float:
        return {"type": parsing.seconds}
    if hint is int:
        return {"type": {"seconds": parsing.whole_seconds, "bytes": parsing.size}.get(unit, parsing.number)}
    return {"type": parsing.text}


def _default_text(setting: str, default: float | str) -> str:
    if setting.endswith("_request"):
        return f"{default}, or the limit if that is smaller"
    unit = SETTING_NAMES[setting].unit
    if unit == "seconds":
        return f"{default:g}s"
    if unit == "bytes" and isinstance(default, int):
        return f"{default >> 20}Mi"
    return str(default)


def add_cluster(parser: argparse.ArgumentParser, *, embedded: bool = True, short: bool = True) -> None:
    """Add the options for the cluster, the credentials and the namespace.

    `embedded` shows the options of the embedded cluster in the help, and in the hint of an error that there is no
    cluster. `short` adds ``-n`` for the namespace.
    """
    parser.set_defaults(suggest_local=embedded)
    group = parser.add_argument_group(
        "cluster", "Default: inside a pod its own cluster, else the cluster that kubectl uses."
    )
    for option, how in _CLUSTER.items():
        group.add_argument(option, **how)
    add_settings(group, NAMESPACE, short=short)
    local = "run on this machine with the embedded cluster (no Kubernetes needed)"
    group.add_argument("--local", action="store_true", help=local if embedded else argparse.SUPPRESS)
    isolation = (
        "isolate --local with gvisor (needs runsc), or run a plain process without isolation; auto is gvisor if "
        "runsc is installed, else process (default: auto)"
    )
    group.add_argument(
        "--isolation",
        choices=("auto", "gvisor", "process"),
        help=isolation if embedded else argparse.SUPPRESS,
    )


def add_program(parser: argparse.ArgumentParser) -> None:
    """Add the options for the program and its input."""
    parser.usage = f"{parser.usage} (SCRIPT | - | -c CODE) [-- ARGUMENT ...]"
    group = parser.add_argument_group("program")
    group.add_argument("script", nargs="?", metavar="SCRIPT", help="run this file; - is stdin")
    group.add_argument("-c", dest="code", metavar="CODE", help="run this Python code")
    group.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="PATH[:NAME]",
        help="copy this file into the program's directory, as NAME if it is given (repeatable)",
    )
    group.add_argument("--stdin", metavar="FILE", help="use this file as stdin of the program; - is stdin")
    add_settings(group, ENVIRONMENT)


def add_limits_and_pod(parser: argparse.ArgumentParser, *, delivery: bool = True) -> None:
    """Add the options for the limits of the program and for its pod, with or without ``--delivery``."""
    group = parser.add_argument_group("limits", "Times: 90, 90s, 5m, 1h30m, 1d. CPU: 2, 500m. Sizes: 512Mi, 1Gi.")
    add_settings(group, LIMITS)
    pod = {name: about for name, about in POD.items() if delivery or name != "delivery"}
    add_settings(parser.add_argument_group("pod"), pod)


# -- parsed arguments ------------------------------------------------------------------------------------------


def cluster(args: argparse.Namespace) -> Cluster:
    """Return the cluster that the options choose. Raises `UsageError` if they contradict each other."""
    from ..cluster import Cluster, ConnectionOverrides

    used = cluster_options(args)
    if args.isolation is not None and not args.local:
        raise UsageError("--isolation requires --local")
    if args.local and used:
        raise UsageError(f"--local cannot be combined with {' and '.join(used)}")
    if args.gke_endpoint is not None and args.gke is None:
        raise UsageError("--gke-endpoint requires --gke")
    if args.local:
        return Cluster.local(args.isolation or "auto")
    overrides = ConnectionOverrides(
        server=args.server, token=args.token, user=vars(args)["as"], groups=tuple(args.as_group or ())
    )
    if args.gke is not None:
        from ..kube.gke import parse_gke

        others = [name for name in used if name in ("--kubeconfig", "--context", "--server")]
        if others:
            raise UsageError(f"--gke cannot be combined with {' and '.join(others)}")
        try:
            name = parse_gke(args.gke)
        except ConfigError as error:
            raise UsageError(f"--gke: {error.message}", error.hint) from None
        return Cluster.gke(*name, endpoint=args.gke_endpoint or "auto", overrides=overrides)
    if args.kubeconfig is not None or args.context is not None or args.server is not None:
        return Cluster.kubeconfig(args.kubeconfig, args.context, overrides=overrides)
    return Cluster.auto(overrides=overrides)


def reject_local(args: argparse.Namespace, verb: str) -> None:
    """Raise `UsageError` if ``--local`` is set: a new embedded cluster has nothing to list or clean (`verb`)."""
    if args.local:
        raise UsageError(f"--local: there is nothing to {verb}; the embedded cluster ends with its command")


def connect(args: argparse.Namespace) -> tuple[KubeClient, str]:
    """Return a client of the cluster, not entered yet, and the namespace.

    Raises `UsageError` and `SandboxError`.
    """
    chosen = namespace(args)
    connection = cluster(args)._connect(chosen)
    return connection.client, chosen or connection.namespace or Settings.namespace


def new_sandbox(args: argparse.Namespace, cluster: Cluster, **more: Any) -> AsyncSandbox:
    """Return a Sandbox in a cluster, not entered yet. `more` are arguments that are not settings."""
    open_sandbox: Callable[..., AsyncSandbox] | None = args.open_sandbox
    if open_sandbox is None:
        from ..sandbox import AsyncSandbox

        open_sandbox = AsyncSandbox
    return open_sandbox(cluster, **more, **settings(args))


def cluster_options(args: argparse.Namespace) -> list[str]:
    """Return the options in `args` that name a real cluster or change the connection to it."""
    return [option for option in _CLUSTER if vars(args)[option[2:].replace("-", "_")] is not None]


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings in `args`, without the defaults. `Settings` checks the values."""
    found = {name: getattr(args, name) for name in SETTING_NAMES if name in args}
    if "env" in found:
        found["env"] = input_files.environment(found["env"], os.environ)
    for name in ("node_selector", "labels", "annotations"):
        if name in found:
            found[name] = dict(found[name])
    if "tolerations" in found:
        found["tolerations"] = [*Settings().tolerations, *found["tolerations"]]
    return found


def namespace(args: argparse.Namespace) -> str | None:
    """Return the checked ``--namespace``, or None if it is not set. Raises `SpecError`."""
    return Settings(namespace=args.namespace).namespace if "namespace" in args else None


def read_program(args: argparse.Namespace) -> Program:
    """Return the program that the options choose. Raises `UsageError` and `SpecError`."""
    from .._wire.program import Program

    if args.script == "-" and args.stdin == "-":
        raise UsageError("stdin cannot be both the program and its input")
    code = input_files.read_code(args.script, args.code)
    files = input_files.read_files(args.files)
    source = input_files.STDIN if args.stdin == "-" else args.stdin
    stdin = None if source is None else input_files.read(source, "--stdin")
    return Program(code=code, files=files, args=args.program_args or (), stdin=stdin)

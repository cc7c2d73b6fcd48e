"""``gke-sandbox manifest``: print the Job and the ConfigMap of a run as YAML."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Mapping
from typing import Any

from ..settings import Settings
from . import options
from .console import Console, print_text
from .yaml_output import dump

HELP = "print the Job and ConfigMap of a run as YAML"
DESCRIPTION = """\
Print the Job and the ConfigMap that "gke-sandbox run" sends for the same program
and options, as YAML for "kubectl apply -f -" or for a policy checker. No request
is sent. Without --namespace the objects have no namespace: kubectl then uses
that of its context, as run does.
"""

EPILOG = """\
exit code:
  0 on success; 2 for invalid usage

examples:
  gke-sandbox manifest -c 'print(6 * 7)'
  gke-sandbox manifest script.py --memory 1Gi | kubectl apply -f -
"""

_OWNER = """\
# With "gke-sandbox run" the ConfigMap is created after the Job, which owns it. The uid of the owner is not known
# before the Job exists, so there is no owner reference here. Delete both objects yourself:
#   kubectl{namespace} delete job,configmap {name}
"""
_ATTACH = """\
# The runner waits on its stdin for the program, which "gke-sandbox run" sends over a connection. Without it, the
# container ends after {seconds:g} s.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``manifest``."""
    options.add_program(parser)
    options.add_settings(parser.add_argument_group("cluster"), options.NAMESPACE)
    options.add_limits_and_pod(parser)


def command(args: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - the signature of all commands
    """Print the manifests and return the exit code. Raises `UsageError` and `SpecError`."""
    from .._open_sandbox import new_job_name
    from .._wire.manifests import REQUEST_TIMEOUT, build

    settings = Settings().override(**options.settings(args))
    manifests = build(settings, options.read_program(args), name=new_job_name(), session=secrets.token_hex(4))
    namespace = settings.namespace if "namespace" in args else None
    documents = [manifests.job]
    if manifests.delivery == "attach":
        comment = _ATTACH.format(seconds=REQUEST_TIMEOUT)
    else:
        option = f" --namespace {namespace}" if namespace else ""
        comment = _OWNER.format(namespace=option, name=manifests.name)
        config_map = manifests.config_map("")
        del config_map["metadata"]["ownerReferences"]
        documents.insert(0, config_map)  # First, because the pod cannot start without it.
    print_text(comment + "---\n".join(dump(_in_namespace(each, namespace)) for each in documents))
    return 0


def _in_namespace(obj: Mapping[str, Any], namespace: str | None) -> dict[str, Any]:
    """Return the object with its namespace after its name."""
    if namespace is None:
        return dict(obj)
    name, *others = obj["metadata"].items()
    return {**obj, "metadata": dict([name, ("namespace", namespace), *others])}

"""``gke-sandbox rbac``: print what a cluster needs, for the namespace and the identities that you name."""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from typing import Any

from .._checks import check_name
from ..kube import names
from . import parsing
from .console import Console, print_text
from .yaml_output import dump, scalar

NAMESPACE, SERVICE_ACCOUNT = "agent-sandbox", "gke-sandbox"
"""The names in rbac.yaml."""
ATTACH = "gke-sandbox-attach"
"""The name of the Role for warm pods, and of its binding."""

_RBAC_GROUP = "rbac.authorization.k8s.io"
_EMAIL = re.compile(r"[^@\s/]+@[^@\s/]+\.gserviceaccount\.com", re.ASCII)
_HEADER = """\
# Everything that a cluster needs to run untrusted code with gke-sandbox, printed by "gke-sandbox rbac". Apply it
# with kubectl apply -f -
"""
_WORKLOAD_IDENTITY = """\
# Allow the service account to act as the Google service account, once. PROJECT is that of the cluster:
#   gcloud iam service-accounts add-iam-policy-binding {email} \\
#     --role roles/iam.workloadIdentityUser --member "serviceAccount:PROJECT.svc.id.goog[{namespace}/{name}]"
"""

HELP = "print the permissions and limits for a cluster"
DESCRIPTION = """\
Print the manifests of everything that a cluster needs, as YAML for "kubectl apply
-f -": a namespace, a service account, Roles with exactly the necessary permissions,
a NetworkPolicy, a ResourceQuota and a LimitRange. No request is sent.
docs/permissions.md explains each rule.
"""

EPILOG = """\
exit code:
  0 on success; 2 for invalid usage

examples:
  gke-sandbox rbac | kubectl apply -f -
  gke-sandbox rbac --namespace sandboxes --service-account agents/agent --warm
  gke-sandbox rbac --user jane@example.com --group data-team@example.com
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``rbac``."""
    group = parser.add_argument_group("values")
    group.add_argument(
        "-n",
        "--namespace",
        default=NAMESPACE,
        metavar="NAME",
        help=f"create the sandboxes in this namespace (default: {NAMESPACE})",
    )
    group.add_argument(
        "--service-account",
        default=SERVICE_ACCOUNT,
        metavar="[NAMESPACE/]NAME",
        help="create this service account for your program, in another namespace if it runs there "
        f"(default: {SERVICE_ACCOUNT})",
    )
    group.add_argument(
        "--google-service-account",
        metavar="EMAIL",
        help="annotate the service account with this Google service account (Workload Identity)",
    )
    group.add_argument(
        "--user",
        action="append",
        type=parsing.nonempty,
        default=[],
        metavar="NAME",
        help="also allow this user, or the e-mail address of a Google service account (repeatable)",
    )
    group.add_argument(
        "--group",
        action="append",
        type=parsing.nonempty,
        default=[],
        metavar="NAME",
        help="also allow this group (repeatable)",
    )
    group.add_argument("--warm", action="store_true", help="also allow what warm pods and --delivery attach need")


def command(args: argparse.Namespace, console: Console) -> int:  # noqa: ARG001 - the signature of all commands
    """Print rbac.yaml with the chosen names, and return the exit code. Raises `UsageError` and `SpecError`."""
    namespace, slash, account = args.service_account.rpartition("/")
    check_name("--namespace", args.namespace, names.dns_label)
    check_name("--service-account", account, names.dns_subdomain)
    if slash:
        check_name("--service-account", namespace, names.dns_label, what="the namespace ")
    account_namespace, email = namespace or args.namespace, args.google_service_account
    if email is not None and not _EMAIL.fullmatch(email):
        raise parsing.UsageError(
            f"--google-service-account: must be like NAME@PROJECT.iam.gserviceaccount.com, got {email!r}"
        )
    text = Path(__file__).parents[1].joinpath("rbac.yaml").read_text(encoding="utf-8")
    # The first paragraph is about the file.
    documents = text[text.index("\n\n") + 1 :].split("\n---\n")
    subjects: list[dict[str, Any]] = [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}]
    subjects += [{"kind": "User", "apiGroup": _RBAC_GROUP, "name": name} for name in args.user]
    subjects += [{"kind": "Group", "apiGroup": _RBAC_GROUP, "name": name} for name in args.group]
    printed = []
    for document in documents:
        if not args.warm and _has(document, f"  name: {ATTACH}"):
            continue
        if _has(document, "kind: ServiceAccount"):
            document = _in_namespace(document, account_namespace)
            document = _replace(document, f"  name: {SERVICE_ACCOUNT}", f"  name: {scalar(account)}")
            if email is not None:
                comment = _WORKLOAD_IDENTITY.format(email=email, namespace=account_namespace, name=account)
                document = (
                    f"{comment}{document}\n  annotations:\n    iam.gke.io/gcp-service-account: {scalar(email)}"
                )
        elif _has(document, "kind: RoleBinding"):
            document = document[: document.index("\nsubjects:\n")] + "\nsubjects:\n"
            document = _in_namespace(document, args.namespace) + textwrap.indent(dump(subjects), "  ").rstrip("\n")
        else:
            document = _in_namespace(document, args.namespace)
        printed.append(document.strip("\n"))
    print_text(_HEADER + "\n" + "\n---\n".join(printed) + "\n")
    return 0


def _has(document: str, line: str) -> bool:
    return f"\n{line}\n" in f"\n{document}\n"


def _in_namespace(document: str, namespace: str) -> str:
    for field in ("name", "namespace"):
        document = _replace(document, f"  {field}: {NAMESPACE}", f"  {field}: {scalar(namespace)}")
    return document


def _replace(document: str, line: str, other: str) -> str:
    """Replace a whole line."""
    return re.sub(rf"^{re.escape(line)}$", lambda _: other, document, flags=re.MULTILINE)

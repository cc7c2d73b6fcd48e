"""The behaviour of client-go with plugins and in pods, as data: see `cases.Case`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gke_sandbox.kube.auth.impersonation import Impersonation
from gke_sandbox.kube.config.types import ConnectionOverrides

from ..config.cases import Case, check, one, program, wrong
from ..config.kubeconfigs import CA, b64, kubeconfig

GROUP = "client.authentication.k8s.io"


def run(
    name: str,
    *lines: str,
    cluster: dict[str, Any] | None = None,
    expected: dict[str, Any] | None = None,
    error: tuple[str, ...] = (),
    files: dict[str, bytes] | None = None,
    answers: tuple[int, ...] = (200,),
    **fields: Any,
) -> Case:
    """Return a case of a plugin next to the kubeconfig; `fields` are added to its exec entry."""
    entry = {"apiVersion": f"{GROUP}/v1beta1", "command": "./plugin", "interactiveMode": "Never", **fields}
    config = kubeconfig(cluster, {"exec": entry})
    return Case(
        name,
        {"config": config, "plugin": program(*lines), **(files or {})},
        expected or {},
        error,
        answers=answers,
    )


def refused(name: str, *error: str, **fields: Any) -> Case:
    """Return a case of an exec entry that is refused before the plugin runs."""
    entry = {"apiVersion": f"{GROUP}/v1beta1", "command": "x", **fields}
    return wrong(
        name, {}, {"exec": {key: value for key, value in entry.items() if value is not None}}, error=error
    )


TOKEN = 'give({"token": "t"})'
LATER = '"expirationTimestamp": "2999-01-01T00:00:00Z"'
EARLIER = '"expirationTimestamp": "2001-01-01T00:00:00Z"'

PLUGINS = [
    run("v1beta1", TOKEN, expected={"authorization": "Bearer t", "credentials": "exec plugin plugin"}),
    run("v1", TOKEN, apiVersion=f"{GROUP}/v1", expected={"authorization": "Bearer t"}),
    refused("v1alpha1", "v1alpha1", f"{GROUP}/v1beta1", apiVersion=f"{GROUP}/v1alpha1"),
    run(
        "a relative command; args, env and our own working directory",
        "ours = os.getcwd() != os.path.dirname(sys.argv[0])",
        'give({"token": "-".join([os.environ["WHO"], *sys.argv[1:], str(ours)])})',
        args=["a", "b"],
        env=[{"name": "WHO", "value": "w"}, {"name": "EMPTY", "value": ""}],
        expected={"authorization": "Bearer w-a-b-True"},
    ),
    run(
        "KUBERNETES_EXEC_INFO",
        'give({"token": "-".join([info["kind"], *sorted(info["spec"]), str(info["spec"]["interactive"])])})',
        expected={"authorization": "Bearer ExecCredential-interactive-False"},
    ),
    run(
        "provideClusterInfo, with the CA inlined and the extension as it stands",
        'cluster = info["spec"]["cluster"]',
        'assert cluster.pop("config") == {"number": 1, "list": [1.5, None, "a"]}',
        'give({"token": "-".join(f"{key}={value}" for key, value in sorted(cluster.items()))})',
        provideClusterInfo=True,
        cluster={
            "server": "https://h",
            "certificate-authority": "ca.pem",
            "tls-server-name": "name",
            "extensions": [{"name": f"{GROUP}/exec", "extension": {"number": 1, "list": [1.5, None, "a"]}}],
        },
        files={"ca.pem": CA},
        expected={
            "authorization": f"Bearer certificate-authority-data={b64(CA)}-server=https://h-tls-server-name=name"
        },
    ),
    refused("v1 without interactiveMode", "no interactiveMode", apiVersion=f"{GROUP}/v1"),
    refused("interactiveMode invalid", "interactiveMode 'invalid'", interactiveMode="invalid"),
    refused("no command", "no command", command=None),
    refused("no apiVersion", "no apiVersion", apiVersion=None),
    refused("env without a name", "no name", env=[{"value": "x"}]),
    wrong(
        "exec and auth-provider",
        {},
        {"token": "t", "exec": {"command": "x"}, "auth-provider": {"name": "oidc"}},
        error=("both exec and auth-provider",),
    ),
    wrong("an exec entry that is not used is checked too", {}, {"token": "t", "exec": {}}, error=("no command",)),
    one(
        "over http nothing is run",
        {"server": "http://h"},
        {"exec": {"command": "./no", "apiVersion": f"{GROUP}/v1beta1"}},
        expected={"auth": None, "credentials": "none (no TLS)"},
    ),
    run(
        "Google's plugin is not installed",
        TOKEN,
        command="./gke-gcloud-auth-plugin",
        answers=(),
        expected={"credentials": "Google Application Default Credentials"},
    ),
    run("installHint", TOKEN, command="./no-such", installHint="get it", error=("no-such", "get it")),
    run("another apiVersion comes back", f'give({{"token": "t"}}, "{GROUP}/v1")', error=(f"{GROUP}/v1",)),
    run("the plugin fails", "sys.exit(73)", error=("73",)),
    run("no status", "give(None)", error=("status",)),
    run("neither token nor certificate", "give({})", error=("token",)),
    run(
        "kept until it expires",
        f'give({{"token": f"t{{n}}", {LATER}}})',
        answers=(200, 200),
        expected={"authorization": ["Bearer t1", "Bearer t1"]},
    ),
    run(
        "kept for ever",
        'give({"token": f"t{n}"})',
        answers=(200, 200),
        expected={"authorization": ["Bearer t1", "Bearer t1"]},
    ),
    run(
        "expired",
        f'give({{"token": f"t{{n}}", {EARLIER}}})',
        answers=(200, 200),
        expected={"authorization": ["Bearer t1", "Bearer t2"]},
    ),
    run(
        "401: run again, and the request is sent again, once",
        'give({"token": f"t{n}"})',
        answers=(401, 401, 200),
        expected={"authorization": ["Bearer t1", "Bearer t2", "Bearer t2"]},
    ),
]

ENVIRON = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
ACCOUNT = {"account/token": b" from-pod\n", "account/ca.crt": CA, "account/namespace": b"pods-own\n"}


def pod(
    name: str,
    expected: dict[str, Any] | None = None,
    *,
    files: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    **more: Any,
) -> Case:
    """Return a case in a pod; `files` are added to those of its service account."""
    return Case(
        name,
        {**ACCOUNT, **(files or {})},
        expected or {},
        environ={**ENVIRON, **(environ or {})},
        **{"path": None, **more},
    )


NAMESPACED = kubeconfig(context={"namespace": "agents"})

PODS = [
    pod(
        "the pod's own cluster",
        {
            "server": "https://10.0.0.1:443",
            "ca_data": CA,
            "ca_source": "DIR/account/ca.crt",
            "authorization": "Bearer from-pod",
            "namespace": "pods-own",
        },
    ),
    pod(
        "IPv6 stands in brackets",
        {"server": "https://[fd00::1]:443"},
        environ={"KUBERNETES_SERVICE_HOST": "fd00::1"},
    ),
    pod("POD_NAMESPACE", {"namespace": "mine"}, environ={"POD_NAMESPACE": "mine"}),
    pod("the pod comes before the default kubeconfig", {"file": None}, files={"k": kubeconfig()}, listed="k"),
    pod("a path comes before the pod", {"file": "DIR/k"}, files={"k": kubeconfig()}, path="k"),
    pod(
        "a context comes before the pod, and is looked up in KUBECONFIG",
        {"file": "DIR/k", "context": "c"},
        files={"k": {**kubeconfig(), "current-context": "zz"}},
        listed="k",
        context="c",
    ),
    pod(
        "a context is looked up in the default file",
        {"file": "DIR/.kube/config"},
        files={".kube/config": kubeconfig()},
        environ={"HOME": "DIR"},
        context="c",
    ),
    pod("a context is not looked up in the pod", context="c", error=(".kube/config does not exist",)),
    pod("a kubeconfig that is broken is no reason for the pod", files={"k": b"["}, path="k", error=("DIR/k",)),
    pod(
        "TestInClusterConfigNamespace, the context's",
        {"namespace": "agents"},
        files={"k": NAMESPACED},
        path="k",
    ),
    pod("TestInClusterConfigNamespace, the pod's", {"namespace": "pods-own"}, files={"k": kubeconfig()}, path="k"),
    pod(
        "overrides in a pod",
        {
            "server": "https://other",
            "authorization": "Bearer given",
            "impersonation": Impersonation("me", groups=("a",)),
            "namespace": "mine",
            "ca_data": CA,
        },
        overrides=ConnectionOverrides(
            server="https://other", token="given", user="me", groups=("a",), namespace="mine"
        ),
    ),
    Case(
        "a pod without a token, and no kubeconfig",
        environ=ENVIRON,
        path=None,
        error=("no cluster", "no service account token (DIR/account/token)", "home/.kube/config does not exist"),
    ),
    Case(
        "no pod, and a default kubeconfig",
        {**ACCOUNT, ".kube/config": kubeconfig()},
        {"server": "https://1.2.3.4:6443", "namespace": None},
        path=None,
        environ={"HOME": "DIR"},
    ),
    Case(
        "nothing at all",
        path=None,
        error=("no cluster", "not a pod", "home/.kube/config does not exist", "GKE"),
    ),
    Case(
        "nothing but what was given",
        {},
        {"server": "https://h", "authorization": "Bearer t", "context": None, "file": None},
        path=None,
        overrides=ConnectionOverrides(server="https://h", token="t"),
    ),
]


@pytest.mark.parametrize("case", PLUGINS, ids=lambda case: case.name)
def test_plugins_behave_as_in_client_go(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


@pytest.mark.parametrize("case", PODS, ids=lambda case: case.name)
def test_the_cluster_is_found_in_the_documented_order(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)

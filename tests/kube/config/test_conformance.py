"""The behaviour of client-go with kubeconfigs, as data: see `cases.Case`.

Each case is named after the corresponding test of client-go, or after a feature in which clients differ.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gke_sandbox.kube.auth.impersonation import Impersonation
from gke_sandbox.kube.config.types import ConnectionOverrides

from .cases import Case, check, named, one, wrong
from .kubeconfigs import CA, b64, kubeconfig

SERVER = "https://1.2.3.4:6443"

# Files, and how they are merged
FILES = [
    Case("TestNonExistentCommandLineFile", {}, error=("cannot read DIR/config",)),
    Case(
        "TestToleratingMissingFiles",
        {},
        path=None,
        listed="a:b:c",
        error=("no cluster", "KUBECONFIG (DIR/a:DIR/b:DIR/c) does not exist"),
    ),
    Case("TestErrorReadingFile", {"config": b"bogus value"}, error=("DIR/config", "it must be a mapping")),
    Case("TestErrorReadingNonFile", {"config": None}, error=("DIR/config", "Is a directory")),
    Case(
        "TestErrorReadingNonFile, among good ones",
        {"config": None, "good": kubeconfig()},
        path=None,
        listed="good:config",
        error=("DIR/config", "Is a directory"),
    ),
    Case(
        "TestConflictingCurrentContext",
        {"a": {**kubeconfig(), "current-context": ""}, "b": kubeconfig(), "c": {"current-context": "other"}},
        {"context": "c"},
        path=None,
        listed="a:b:c",
    ),
    Case(
        "Example_noMergingOnExplicitPaths",
        {"config": kubeconfig(), "other": kubeconfig({"server": "https://other"})},
        {"server": SERVER},
        listed="other",
    ),
    Case(
        "Example_mergingEverythingNoConflicts",
        {
            "a": {"clusters": kubeconfig()["clusters"]},
            "b": {"users": [{"name": "u", "user": {"token": "t"}}]},
            "c": {"contexts": kubeconfig()["contexts"], "current-context": "c"},
        },
        {"server": SERVER, "authorization": "Bearer t", "file": "DIR/c"},
        path=None,
        listed="a:b:c",
    ),
    Case(
        "an entry of the first file counts whole",
        {"a": {**kubeconfig({"server": "https://a"})}, "b": kubeconfig({"tls-server-name": "b"}, {"token": "b"})},
        {"server": "https://a", "tls_server_name": None, "authorization": None},
        path=None,
        listed="a:b",
    ),
    Case(
        "TestDeduplicate",
        {"a": kubeconfig(), "b": named("user", "v")},
        {"server": SERVER},
        path=None,
        listed="a:a:b:b:a",
    ),
    Case(
        "TestLoadingGetLoadingPrecedence, KUBECONFIG empty",
        {".kube/config": kubeconfig()},
        {"file": "DIR/.kube/config"},
        path=None,
        environ={"HOME": "DIR", "KUBECONFIG": ""},
    ),
    Case(
        "empty files",
        {"a": b"", "b": b"\n# nothing\n", "c": kubeconfig()},
        {"file": "DIR/c"},
        path=None,
        listed="a:b:c",
    ),
    Case("missing files", {"c": kubeconfig()}, {"file": "DIR/c"}, path=None, listed="a:b/b:c/c:c"),
    *[
        Case(
            f"duplicate {kind}s",
            {"config": named(kind, "x", "x")},
            error=("DIR/config", f"{kind}s: duplicate name", '"x"'),
        )
        for kind in ("cluster", "user", "context")
    ],
    Case(
        "duplicate extensions",
        {"config": {"extensions": [{"name": "x"}, {"name": "x"}]}},
        error=("DIR/config", "extensions", 'duplicate name "x"'),
    ),
    Case(
        "relative paths begin at the file that they stand in",
        {
            "a/config": {**kubeconfig({"certificate-authority": "ca.pem"}), "users": []},
            "b/config": kubeconfig(user={"tokenFile": "../b/./token"}),
            "a/ca.pem": CA,
            "b/token": b"t\n",
        },
        {"ca_data": CA, "ca_source": "DIR/a/ca.pem", "credentials": "token file DIR/b/token"},
        path=None,
        listed="a/config:b/config",
    ),
    Case("another apiVersion", {"config": {"apiVersion": "v2"}}, error=("DIR/config", "apiVersion must be v1")),
]

# Contexts
CONTEXTS = [
    one("no user", {}, {"token": "t"}, {"user": ""}, expected={"authorization": None, "credentials": "none"}),
    one(
        "user missing", {}, {"token": "t"}, {"user": "x"}, expected={"authorization": None, "credentials": "none"}
    ),
    one("namespace", {}, {}, {"namespace": "agents"}, expected={"namespace": "agents"}),
    one("no namespace", expected={"namespace": None}),
    one(
        "namespace overridden",
        {},
        {},
        {"namespace": "agents"},
        expected={"namespace": "mine"},
        overrides=ConnectionOverrides(namespace="mine"),
    ),
    Case(
        "TestCreateMissingContext",
        {"config": kubeconfig()},
        context="zz",
        error=("DIR/config", 'no context "zz"', 'Its contexts are "c"'),
    ),
    Case("no current context", {"config": named("context", "a", "b")}, error=("no current-context", '"a", "b"')),
    Case(
        "cluster missing",
        {"config": kubeconfig(context={"cluster": "x"})},
        error=('context "c" in DIR/config', 'refers to cluster "x", which is not defined'),
    ),
]

# Clusters
CLUSTERS = [
    one("no CA", expected={"ca_data": None, "ca_source": "the system's certificates"}),
    one("TestCertificateData", {"certificate-authority-data": b64(CA)}, expected={"ca_data": CA}),
    wrong("TestValidateEmptyServer", {"server": ""}, error=("has no server",)),
    wrong(
        "CA file and data",
        {"certificate-authority": "ca.pem", "certificate-authority-data": b64(CA)},
        error=("both certificate-authority and certificate-authority-data",),
        files={"ca.pem": CA},
    ),
    wrong("CA file unreadable", {"certificate-authority": "no/ca"}, error=("cannot read DIR/no/ca",)),
    wrong("CA is not PEM", {"certificate-authority-data": b64(b"x")}, error=("no PEM certificate",)),
    one(
        "insecure-skip-tls-verify", {"insecure-skip-tls-verify": True}, expected={"insecure_skip_tls_verify": True}
    ),
    Case(
        "insecure-skip-tls-verify and a CA",
        {"config": kubeconfig({"insecure-skip-tls-verify": True, "certificate-authority-data": b64(CA)})},
        error=("DIR/config", "cannot be combined with"),
    ),
    one("tls-server-name", {"tls-server-name": "kubernetes"}, expected={"tls_server_name": "kubernetes"}),
    one(
        "TestTLSServerNameClearsWhenServerNameSet",
        {"tls-server-name": "kubernetes", "certificate-authority-data": b64(CA)},
        expected={"server": "https://other", "tls_server_name": None, "ca_data": CA},
        overrides=ConnectionOverrides(server="https://other"),
    ),
    *[
        one(f"TestProxyURL {url}", {"proxy-url": url}, expected={"proxy_url": url or None})
        for url in ("", "socks5://p:1080", "http://p:3128", "https://me:pw@p", "HTTP://p")
    ],
    *[
        Case(
            f"TestProxyURL {url}",
            {"config": kubeconfig({"proxy-url": url})},
            error=('context "c" in DIR/config: its proxy-url',),
        )
        for url in ("socks6://p", "socks5h://p", "example.com", "chewbacca@example.com", "ftp://p", "http://")
    ],
    one("disable-compression", {"disable-compression": True}, expected={"disable_compression": True}),
    one("compression", expected={"disable_compression": False}),
    one(
        "a path is kept, a query is not",
        {"server": "https://h:8080/foo/bar//?a=b#c"},
        expected={"address": "https://h:8080/foo/bar"},
    ),
]

# Users
USERS = [
    one("token", {}, {"token": "t"}, expected={"authorization": "Bearer t", "credentials": "token"}),
    one(
        "TestBasicTokenFile",
        {},
        {"tokenFile": "token"},
        files={"token": b" t\n"},
        expected={"authorization": "Bearer t", "credentials": "token file DIR/token"},
    ),
    one(
        "token and tokenFile",
        {},
        {"token": "inline", "tokenFile": "token"},
        files={"token": b"from-file"},
        expected={"authorization": "Bearer from-file"},
    ),
    one("token, tokenFile missing", {}, {"token": "t", "tokenFile": "no"}, expected={"authorization": "Bearer t"}),
    wrong("tokenFile missing", {}, {"tokenFile": "no"}, error=("cannot read DIR/no",)),
    one("basic", {}, {"username": "me", "password": "pw"}, expected={"authorization": "Basic bWU6cHc="}),
    one(
        "TestCertificateData",
        {},
        {"client-certificate-data": b64(CA), "client-key-data": b64(b"key")},
        expected={
            "client_certificate.certificate": CA,
            "client_certificate.key": b"key",
            "credentials": "client certificate",
        },
    ),
    one("a key alone is nothing", {}, {"client-key": "/no"}, expected={"client_certificate": None}),
    wrong(
        "TestValidateMultipleMethodsAuthInfo",
        {},
        {"token": "t", "username": "u"},
        error=("both a token and a user name",),
    ),
    wrong(
        "tokenFile and basic",
        {},
        {"tokenFile": "token", "username": "u"},
        error=("both a tokenFile and a user name",),
        files={"token": b"t"},
    ),
    wrong(
        "TestValidateCertDataOverridesFiles",
        {},
        {"client-certificate-data": b64(CA), "client-certificate": "c", "client-key-data": b64(b"k")},
        error=("both client-certificate and client-certificate-data",),
    ),
    wrong(
        "key file and data",
        {},
        {"client-certificate-data": b64(CA), "client-key": "k", "client-key-data": b64(b"k")},
        error=("both client-key and client-key-data",),
    ),
    wrong("certificate without key", {}, {"client-certificate-data": b64(CA)}, error=("no client-key",)),
    wrong(
        "certificate unreadable",
        {},
        {"client-certificate": "no", "client-key-data": b64(b"k")},
        error=("client-certificate", "cannot read DIR/no"),
    ),
    one(
        "TestFullImpersonateConfig",
        {},
        {"as": "me", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"Sc/ope": ["x", "z"], "none": []}},
        expected={
            "impersonation": Impersonation("me", "7", ("a", "b"), {"Sc/ope": ("x", "z"), "none": ()}),
        },
    ),
    *[
        wrong(f"{key} without a user", {}, {key: value}, error=("require a user to impersonate",))
        for key, value in (("as-uid", "7"), ("as-groups", ["a"]), ("as-user-extra", {"a": ["b"]}))
    ],
    one(
        "impersonation overridden, one field at a time",
        {},
        {"as": "me", "as-uid": "7", "as-groups": ["a", "b"]},
        expected={"impersonation": Impersonation("you", "7", ("c",))},
        overrides=ConnectionOverrides(user="you", groups=("c",)),
    ),
    one(
        "a token that is given comes before all others",
        {},
        {"tokenFile": "no", "client-certificate": "no", "username": "u", "exec": {}, "as": "me"},
        expected={
            "authorization": "Bearer given",
            "client_certificate": None,
            "impersonation": Impersonation("me"),
        },
        overrides=ConnectionOverrides(token="given"),
    ),
    one(
        "nothing of it over http, but for impersonation",
        {"server": "http://h", "insecure-skip-tls-verify": True, "certificate-authority-data": b64(CA)},
        {"tokenFile": "no", "client-certificate-data": b64(CA), "client-key-data": b64(b"k"), "as": "me"},
        expected={
            "authorization": None,
            "client_certificate": None,
            "ca_data": None,
            "impersonation": Impersonation("me"),
        },
    ),
    wrong("auth-provider gcp", {}, {"auth-provider": {"name": "gcp"}}, error=('"gcp"', "gke-gcloud-auth-plugin")),
    wrong("auth-provider oidc", {}, {"auth-provider": {"name": "oidc"}}, error=('"oidc"', "exec", "tokenFile")),
    wrong("auth-provider and a token", {}, {"token": "t", "auth-provider": {"name": "gcp"}}, error=('"gcp"',)),
    wrong(
        "data that is not valid base64",
        {},
        {"client-key-data": "a b="},
        error=("client-key-data is not valid base64",),
    ),
    one(
        "data with line breaks",
        {},
        {"client-certificate-data": "YW\nI=\r\n", "client-key-data": "YWI="},
        expected={"client_certificate.certificate": b"ab"},
    ),
]


@pytest.mark.parametrize("case", [*FILES, *CONTEXTS, *CLUSTERS, *USERS], ids=lambda case: case.name)
def test_kubeconfigs_are_read_as_in_client_go(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)

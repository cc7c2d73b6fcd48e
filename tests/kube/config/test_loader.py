"""Find a cluster from files and an environment, or raise one clear error."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.auth.static import BearerToken, ClientCertificate, TokenFile
from gke_sandbox.kube.config.kubeconfig import parse
from gke_sandbox.kube.config.loader import find_cluster, in_cluster, load_kubeconfig
from gke_sandbox.kube.config.types import ClusterConfig, ConnectionOverrides

from .kubeconfigs import CA, Write, b64, kubeconfig

SECRETS = ("t0ken-s3cret", "passw0rd-s3cret", "k3y-s3cret")


def load(path: Path, context: str | None = None) -> ClusterConfig:
    return load_kubeconfig(str(path), context, environ={})


# Files


def linked(tmp_path: Path) -> Path:
    """Return a directory where ``link/..`` is another directory, `real`. Both contain different files."""
    (tmp_path / "real" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inside")
    for directory, name in ((tmp_path, "wrong"), (tmp_path / "real", "right")):
        content = kubeconfig(user={"tokenFile": "token"}, context={"namespace": name})
        (directory / "config").write_text(json.dumps(content))
        (directory / "token").write_text(name)
        (directory / "ca.pem").write_bytes(CA + name.encode())
    return tmp_path


@pytest.mark.parametrize("prefix", ["{}/", "", "./"])
def test_the_kubeconfigs_path_is_opened_as_it_is(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = prefix.format(linked(tmp_path)) + "link/../config"
    monkeypatch.chdir(tmp_path)
    assert load(Path(name)).namespace == "right"
    assert load_kubeconfig(environ={"KUBECONFIG": name}).namespace == "right"


def test_an_absolute_reference_is_opened_as_it_is_and_a_relative_one_is_resolved_as_text(tmp_path: Path) -> None:
    directory = linked(tmp_path)
    path = directory / "other"
    for prefix, expected in ((f"{directory}/", "right"), ("", "wrong")):
        cluster = {"certificate-authority": f"{prefix}link/../ca.pem"}
        path.write_text(json.dumps(kubeconfig(cluster, {"tokenFile": f"{prefix}link/../token"})))
        config = load(path)
        assert config.ca_data == CA + expected.encode()
        assert isinstance(config.auth, TokenFile)
        assert config.auth.token() == expected


# Contexts


def test_all_fields_of_a_context_are_read(write: Write) -> None:
    path = write(
        kubeconfig(
            {"certificate-authority-data": b64(CA), "tls-server-name": "kubernetes"},
            {"token": "t0ken-s3cret", "client-certificate-data": b64(CA), "client-key-data": b64(b"k3y-s3cret")},
            {"namespace": "agents"},
        )
    )
    assert load(path) == ClusterConfig(
        server="https://1.2.3.4:6443",
        namespace="agents",
        ca_data=CA,
        tls_server_name="kubernetes",
        auth=BearerToken("t0ken-s3cret", source=f'token of user "u" in {path}'),
        client_certificate=ClientCertificate(CA, b"k3y-s3cret"),
        source=f'context "c" in {path}',
        context="c",
        file=str(path),
        ca_source=f'certificate-authority-data of cluster "k" in {path}',
        credentials="token and client certificate",
    )


def test_a_repr_shows_no_secret(write: Write) -> None:
    key = {"client-certificate-data": b64(CA), "client-key-data": b64(b"k3y-s3cret")}
    token_file = write(b"t0ken-s3cret", "token")
    plugin = {
        "command": "x",
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "env": [{"name": "A", "value": "t0ken-s3cret"}],
    }
    for user in (
        {"token": "t0ken-s3cret", **key},
        {"username": "me", "password": "passw0rd-s3cret"},
        {"tokenFile": str(token_file), "token": "t0ken-s3cret"},
        {"exec": plugin},
    ):
        path = write(kubeconfig({"proxy-url": "http://me:passw0rd-s3cret@proxy"}, user))
        config = load(path)
        for value in (config, config.auth, config.client_certificate, parse(path.read_bytes(), path)):
            assert not any(secret in repr(value) or secret in str(value) for secret in SECRETS)
            assert b64(b"k3y-s3cret") not in repr(value)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, None),
        ({"username": "me", "password": "p"}, "Basic bWU6cA=="),
        ({"token": "", "exec": None, "as-groups": [], "client-key": None}, None),
    ],
)
def test_credentials(write: Write, user: dict[str, Any], expected: str | None) -> None:
    auth = load(write(kubeconfig(user=user))).auth
    assert (auth is None) is (expected is None)
    request = next((auth or httpx.Auth()).sync_auth_flow(httpx.Request("GET", "https://cluster")))
    assert request.headers.get("Authorization") == expected


@pytest.mark.parametrize(
    ("user", "credentials"),
    [
        ({"token": "t"}, "token"),
        ({"username": "u"}, "user name and password"),
        ({"client-certificate-data": b64(CA), "client-key-data": b64(b"k")}, "client certificate"),
        ({}, "exec plugin no-such-plugin"),
        ({"password": "not used without a user name"}, "exec plugin no-such-plugin"),
    ],
)
def test_other_credentials_are_used_instead_of_a_plugin(
    write: Write, user: dict[str, Any], credentials: str
) -> None:
    plugin = {"command": "no-such-plugin", "apiVersion": "client.authentication.k8s.io/v1beta1"}
    assert load(write(kubeconfig(user={**user, "exec": plugin}))).credentials == credentials


def test_a_context_without_a_user_is_anonymous(write: Write) -> None:
    config = load(write(kubeconfig(user={"token": "t"}, context={"user": ""})))
    assert (config.auth, config.client_certificate) == (None, None)


def test_an_undefined_user_is_anonymous_with_a_warning(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    config = load(write(kubeconfig(context={"user": "x"})))
    assert (config.auth, config.client_certificate, config.credentials) == (None, None, "none")
    assert 'refers to user "x", which is not defined' in caplog.text


def test_relative_paths_are_relative_to_the_kubeconfig(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pki/ca.pem", "pki/cert.pem"):
        write(CA, f"home/{name}")
    write(b"k3y", "home/pki/key.pem")
    write(b" t0ken-s3cret\n", "home/token")
    write(
        kubeconfig(
            {"certificate-authority": "pki/ca.pem"},
            {"client-certificate": "pki/cert.pem", "client-key": "pki/key.pem", "tokenFile": "token"},
        ),
        "home/config",
    )
    monkeypatch.chdir(tmp_path / "home")
    config = load(Path("config"))
    # The token is read again later, from any working directory.
    monkeypatch.chdir("/")
    assert config.ca_data == CA
    assert config.client_certificate == ClientCertificate(CA, b"k3y")
    assert isinstance(config.auth, TokenFile)
    assert config.auth.token() == "t0ken-s3cret"


def test_data_may_have_line_breaks(write: Write) -> None:
    text = b64(CA)
    broken = f"{text[:20]}\n{text[20:]}\r\n"
    assert load(write(kubeconfig({"certificate-authority-data": broken}))).ca_data == CA


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"server": "https://h/prefix/"}, "https://h/prefix/"),
        ({"server": "http://localhost:8001"}, "http://localhost:8001"),
        ({"server": "https://[::1]:6443"}, "https://[::1]:6443"),
        ({"server": "localhost:8080"}, "http://localhost:8080"),
        ({"server": "h:6443", "insecure-skip-tls-verify": True}, "http://h:6443"),
        ({"server": "h:6443/", "certificate-authority-data": b64(CA)}, "http://h:6443/"),
    ],
)
def test_server_addresses(write: Write, cluster: dict[str, Any], expected: str) -> None:
    assert load(write(kubeconfig(cluster))).server == expected


def test_a_named_context(write: Write) -> None:
    document = kubeconfig()
    document["contexts"].append({"name": "other", "context": {"cluster": "k", "namespace": "ns"}})
    assert load(write(document), "other").namespace == "ns"


def test_json_is_yaml(write: Write) -> None:
    path = write(b'{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"k"}}],\n'
                 b'\t"clusters":[{"name":"k","cluster":{"server":"https://h"}}]}')  # fmt: skip
    assert load(path).server == "https://h"


# Files


def test_an_explicit_path_is_the_only_file(write: Write) -> None:
    other = write(kubeconfig({"server": "https://other"}), "other")
    path = write(kubeconfig())
    assert load_kubeconfig(path, environ={"KUBECONFIG": str(other)}).server == "https://1.2.3.4:6443"


def test_an_explicit_path_may_start_with_a_tilde(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(kubeconfig())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_kubeconfig("~/config", environ={}).server == "https://1.2.3.4:6443"


def test_the_default_file(write: Write, tmp_path: Path) -> None:
    write(kubeconfig(), ".kube/config")
    for environ in ({"HOME": str(tmp_path)}, {"HOME": str(tmp_path), "KUBECONFIG": ""}):
        assert load_kubeconfig(environ=environ).server == "https://1.2.3.4:6443"


def test_the_first_of_several_files_takes_precedence(write: Write, tmp_path: Path) -> None:
    first = write(
        {"clusters": [{"name": "k", "cluster": {"server": "https://first"}}], "current-context": ""}, "a/1"
    )
    second = write(kubeconfig({"server": "https://second", "tls-server-name": "second"}), "b/2")
    third = write({**kubeconfig(context={"namespace": "third"}), "current-context": "elsewhere"}, "3")
    names = [str(tmp_path / "missing"), str(first), "", str(second), str(third), str(first)]
    config = load_kubeconfig(environ={"KUBECONFIG": os.pathsep.join(names)})
    # Entries are not merged: fields that the first one lacks are not taken from the second.
    assert (config.server, config.tls_server_name, config.namespace) == ("https://first", None, None)


def test_an_empty_file_in_the_list_is_accepted(write: Write) -> None:
    names = [str(write(b"", "empty")), str(write(b"# nothing\n", "comment")), str(write(kubeconfig()))]
    assert load_kubeconfig(environ={"KUBECONFIG": os.pathsep.join(names)}).server == "https://1.2.3.4:6443"


def test_an_unreadable_file_in_the_list_is_an_error(write: Write, tmp_path: Path) -> None:
    names = [str(write(kubeconfig())), str(tmp_path)]
    with pytest.raises(ConfigError, match="Is a directory"):
        load_kubeconfig(environ={"KUBECONFIG": os.pathsep.join(names)})


def test_the_error_without_any_file_lists_the_paths(tmp_path: Path) -> None:
    missing = f"{tmp_path}/a{os.pathsep}{tmp_path}/b"
    with pytest.raises(ConfigError, match=r"/a.*/b.* does not exist"):
        load_kubeconfig(environ={"KUBECONFIG": missing})
    with pytest.raises(ConfigError, match=r"\.kube/config does not exist"):
        load_kubeconfig(environ={"HOME": str(tmp_path)})


def aliases_upon_aliases(many: str, first: str) -> bytes:
    """Return a file of a few lines whose aliases expand to ten to the ninth values."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {many.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, 10)]
    return "\n".join(lines).encode()


def deep_aliases() -> bytes:
    """Return a file of a few lines whose aliases expand to a list of a thousand levels."""
    lines = ["a0: &a0 []", *(f"a{n}: &a{n} {'[' * 20}*a{n - 1}{']' * 20}" for n in range(1, 51))]
    return "\n".join(lines).encode()


# Invalid input: one ConfigError that names the file and the problem


BAD: list[tuple[object, str]] = [
    (b"bogus value", "it must be a mapping"),
    (b"- a", "it must be a mapping"),
    (b"a: [b", "line 2: not YAML"),
    (b"\x7fELF\x02\x01\xff", "not UTF-8"),
    (b"a: \x00", "not YAML"),
    (b"a: &x [*x]", "line 1: contains a recursive alias"),
    (b"a: &a {<<: *a}", "contains a recursive alias"),
    (b"a: *b", "line 1: an alias refers to an anchor that is not defined"),
    (deep_aliases(), "nested deeper"),
    (aliases_upon_aliases("[{}]", "[]"), "more than 200000 values"),
    (aliases_upon_aliases("{{<<: [{}]}}", "{k: v}"), "more than 200000 values"),
    (b"a: b\n<<: text", "line 2: a merge key .* needs mappings"),
    (b"? [a]\n: b", "a key must be text"),
    (b"~: b", "a key must be text"),
    (b"a: .inf", "not a finite number"),
    (b"a: !!int x", "not YAML"),
    (b"a: " + b"9" * 1_000_000, "not a finite number"),
    (b"[" * 100_000, "nested deeper"),
    (b"{a: " * 100_000, "nested deeper"),
    (b"a: !!python/object/apply:os.system [ls]", "tags are not supported"),
    (b"a: !!python/name:os.system x", "not YAML"),
    (b"a: !!bool maybe", "not YAML"),
    (b"x" * (10 << 20), "larger than 4 MiB"),
    ({**kubeconfig(), "apiVersion": "v2"}, "apiVersion must be v1"),
    ({**kubeconfig(), "kind": "Pod"}, "kind must be Config"),
    ({**kubeconfig(), "current-context": 5}, "current-context must be text"),
    ({**kubeconfig(), "current-context": ""}, "no current-context"),
    ({**kubeconfig(), "current-context": "zz"}, 'no context "zz"'),
    ({**kubeconfig(), "clusters": {}}, "clusters must be a list"),
    ({**kubeconfig(), "clusters": ["k"]}, r"clusters\[0\] must be a mapping"),
    ({**kubeconfig(), "clusters": [None, {}]}, 'clusters: duplicate name ""'),
    ({**kubeconfig(), "clusters": [{"name": 5}]}, r"clusters\[0\]: name must be text"),
    ({**kubeconfig(), "clusters": [{"name": "k", "cluster": "x"}]}, 'cluster "k" in .* must be a mapping'),
    ({**kubeconfig(), "users": [{"name": "u"}, {"name": "u"}]}, 'users: duplicate name "u"'),
    ({**kubeconfig(), "clusters": []}, r'context "c" in .* refers to cluster "k"'),
    (kubeconfig(context={"cluster": None}), 'context "c" in .* has no cluster'),
    (kubeconfig(context={"namespace": ["x"]}), 'context "c" in .*: namespace must be text'),
    (kubeconfig({"server": ""}), 'cluster "k" in .* has no server'),
    (kubeconfig({"server": 5}), 'cluster "k" in .*: server must be text'),
    (kubeconfig({"server": "ftp://h"}), "not an http or https URL"),
    (kubeconfig({"server": "https://"}), "not an http or https URL"),
    (kubeconfig({"server": "https://h:port"}), "not a URL"),
    (kubeconfig({"server": "https://[::1"}), "not a URL"),
    (kubeconfig({"server": "https://h\nx"}), "not an http or https URL"),
    (kubeconfig({"server": "https://me:passw0rd-s3cret@h"}), "contains a user name"),
    (kubeconfig({"proxy-url": "http://me:passw0rd-s3cret@"}), 'context "c" in .*: its proxy-url is not a URL'),
    (kubeconfig({"server": " https://h"}), "not an http or https URL"),
    (kubeconfig({"server": "h:6443/path"}), 'cluster "k" in .*: .* neither a URL nor HOST:PORT'),
    (kubeconfig(context={"cluster": "a\n\x1b[1m" + "x" * 1000}), r'refers to cluster "a\\n\\x1b\[1mx{74}\.\.\."'),
    (kubeconfig({"insecure-skip-tls-verify": "yes"}), "insecure-skip-tls-verify must be true or false"),
    (
        kubeconfig({"insecure-skip-tls-verify": True, "certificate-authority-data": b64(CA)}),
        "cannot be combined with",
    ),
    (kubeconfig({"certificate-authority-data": b64(CA), "certificate-authority": "/x"}), 'cluster "k" in .* both'),
    (
        kubeconfig({"certificate-authority-data": "%%%"}),
        'cluster "k" in .*certificate-authority-data is not valid base64',
    ),
    (kubeconfig({"certificate-authority-data": "ü"}), "not valid base64"),
    (kubeconfig({"certificate-authority-data": b64(b"no PEM")}), 'cluster "k" in .* no PEM'),
    (
        kubeconfig({"certificate-authority": "/no/such"}),
        r'certificate-authority of cluster "k" in .*: .*No such file',
    ),
    (kubeconfig({"certificate-authority": "/"}), "cannot read /: Is a directory"),
    (kubeconfig({"certificate-authority": "/dev/zero"}), "larger than"),
    (kubeconfig({"certificate-authority": "a\0b"}), "cannot read"),
    (kubeconfig(user={"token": 12345}), 'user "u" in .*: token must be text'),
    (kubeconfig(user={"token": "t0ken-s3cret\nX-Evil: 1"}), 'token of user "u" in .* white space'),
    (kubeconfig(user={"token": "t0ken-s3cret-ü"}), 'token of user "u" in .* characters'),
    (kubeconfig(user={"token": "t0ken-s3cret", "username": "u"}), "only one is allowed"),
    (kubeconfig(user={"tokenFile": "/no/such"}), r'tokenFile of user "u" in .*: cannot read /no/such'),
    (kubeconfig(user={"tokenFile": "/dev/null"}), "is empty"),
    (kubeconfig(user={"client-certificate-data": b64(CA)}), 'user "u" in .* no client-key'),
    (kubeconfig(user={"client-key-data": "*"}), "client-key-data is not valid base64"),
    (kubeconfig(user={"tokenFile": "/dev/null", "username": "u"}), "only one is allowed"),
    (kubeconfig(user={"auth-provider": {"name": "x"}}), 'user "u" in .*: the auth-provider "x" is not supported'),
]


@pytest.mark.parametrize(("content", "expected"), BAD, ids=lambda value: str(value)[:50])
def test_bad_input_is_one_clear_error(write: Write, content: object, expected: str) -> None:
    path = write(content)
    before = time.perf_counter()
    with pytest.raises(ConfigError, match=expected) as caught:
        load(path)
    assert time.perf_counter() - before < 5
    message = f"{caught.value.message} {caught.value.hint}"
    assert str(path) in message
    assert "\n" not in message
    assert not any(secret in message for secret in SECRETS)


def test_invalid_entries_that_are_not_used_are_ignored(write: Write) -> None:
    document = kubeconfig()
    document["users"].append({"name": "v", "user": {"token": "t", "username": "u", "exec": {}}})
    document["clusters"].append({"name": "l", "cluster": {"certificate-authority": "/no/such"}})
    assert load(write(document)).server == "https://1.2.3.4:6443"


def test_an_explicit_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*/nope: No such file"):
        load(tmp_path / "nope")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_an_error(write: Write) -> None:
    path = write(kubeconfig())
    path.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load(path)


def test_a_yaml_error_quotes_nothing_of_the_file(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(b"users:\n- token: t0ken-s3cret\n  : [ t0ken-s3cret }"))
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_aliases_are_resolved(write: Write) -> None:
    text = b"""
        current-context: c
        clusters: [{name: k, cluster: &k {server: https://h, proxy-url: http://p}}, {name: l, cluster: *k}]
        users: [{name: u, user: {<<: {token: t}, as: me}}]
        contexts: [{name: c, context: {cluster: l, user: u}}]
    """
    config = load(write(text))
    assert (config.server, config.proxy_url, config.credentials) == ("https://h", "http://p", "token")


# Token files


def bearer(auth: httpx.Auth) -> str:
    """Return the Authorization header of a request."""
    request = httpx.Request("GET", "https://h")
    return next(auth.sync_auth_flow(request)).headers["Authorization"]


def test_a_token_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    now = 1000.0
    path = tmp_path / "token"
    auth = TokenFile(path, source="s", clock=lambda: now)
    path.write_text("one\n")
    assert bearer(auth) == "Bearer one"
    path.write_text("  two \n")
    now += 59
    assert bearer(auth) == "Bearer one"
    now += 1
    assert bearer(auth) == "Bearer two"


def test_the_last_valid_token_is_used_while_the_file_is_missing(tmp_path: Path) -> None:
    now = 0.0
    path = tmp_path / "token"
    auth = TokenFile(path, source="s", initial="first", clock=lambda: now)
    assert bearer(auth) == "Bearer first"
    for content, expected in (("two", "two"), ("", "two"), ("a b", "two"), ("three", "three")):
        path.write_text(content)
        now += 60
        assert bearer(auth) == f"Bearer {expected}"
    path.unlink()
    now += 60
    assert bearer(auth) == "Bearer three"


def test_the_token_file_takes_precedence_over_the_token(write: Write) -> None:
    token = write(b"from-file", "token")
    config = load(write(kubeconfig(user={"token": "inline", "tokenFile": str(token)})))
    assert config.auth is not None
    assert bearer(config.auth) == "Bearer from-file"


# Pods


@pytest.fixture
def account(write: Write, tmp_path: Path) -> Path:
    write(b"t0ken-s3cret\n", "sa/token")
    write(CA, "sa/ca.crt")
    write(b"agents\n", "sa/namespace")
    return tmp_path / "sa"


POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.mark.parametrize("environ", [{}, {"KUBERNETES_SERVICE_HOST": "h"}, {**POD, "KUBERNETES_SERVICE_PORT": ""}])
def test_outside_a_pod(environ: dict[str, str], account: Path) -> None:
    assert in_cluster(environ, root=account) is None


def test_inside_a_pod(account: Path) -> None:
    config = in_cluster(POD, root=account)
    assert config is not None
    assert (config.server, config.namespace, config.ca_data) == ("https://10.0.0.1:443", "agents", CA)
    assert config.auth is not None
    assert bearer(config.auth) == "Bearer t0ken-s3cret"
    assert "s3cret" not in repr(config)


def test_ipv6_addresses_are_in_brackets(account: Path) -> None:
    config = in_cluster({**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}, root=account)
    assert config is not None
    assert config.server == "https://[fd00::1]:443"


def test_the_namespace_comes_from_the_environment_or_is_unknown(account: Path) -> None:
    config = in_cluster({**POD, "POD_NAMESPACE": "mine"}, root=account)
    assert config is not None
    assert config.namespace == "mine"
    (account / "namespace").unlink()
    config = in_cluster(POD, root=account)
    assert config is not None
    assert config.namespace is None


def test_a_pod_without_a_token_is_like_any_machine(account: Path) -> None:
    (account / "token").unlink()
    assert in_cluster(POD, root=account) is None


def test_an_empty_token_is_an_error_and_a_missing_ca_a_warning(
    account: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (account / "ca.crt").unlink()
    for content in (None, "no PEM"):
        if content is not None:
            (account / "ca.crt").write_text(content)
        config = in_cluster(POD, root=account)
        # As in client-go: the machine may trust the certificate.
        assert config is not None
        assert (config.ca_data, config.ca_source) == (None, "the system's certificates")
        assert "the system's certificates are used" in caplog.messages.pop()
        caplog.clear()
    (account / "token").write_text("\n")
    with pytest.raises(ConfigError, match="token is empty"):
        in_cluster(POD, root=account)


def test_only_the_cluster_of_the_pod_that_was_not_chosen_is_marked(account: Path, write: Write) -> None:
    file = write(kubeconfig())
    assert find_cluster(environ=POD, root=account).is_own_cluster
    assert not find_cluster(str(file), environ=POD, root=account).is_own_cluster
    chosen = in_cluster(POD, root=account)
    assert chosen is not None
    assert not chosen.is_own_cluster
    elsewhere = ConnectionOverrides(server="https://other")
    assert not find_cluster(environ=POD, root=account, overrides=elsewhere).is_own_cluster

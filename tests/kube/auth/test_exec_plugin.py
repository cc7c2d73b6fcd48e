"""The input of an exec plugin, and its output. With real programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trustme

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.auth.exec import cluster_info, exec_info, parse_credentials
from gke_sandbox.kube.config.types import ClusterConfig

from .plugins import (
    CLUSTER,
    ENVIRON,
    TOKEN,
    V1,
    V1BETA1,
    Server,
    ask,
    auth,
    config,
    credential,
    pair,
    write_plugin,
)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


# The input of a plugin


def payload(interactive: bool = False, version: str = V1BETA1, cluster: str = "") -> str:
    spec = f'{cluster}"interactive":{json.dumps(interactive)}'
    return f'{{"kind":"ExecCredential","apiVersion":"{version}","spec":{{{spec}}}}}\n'


FULL = ClusterConfig(
    server="https://cluster:6443/prefix",
    tls_server_name="kubernetes",
    ca_data=b"PEM",
    proxy_url="http://proxy:3128",
    disable_compression=True,
)
EXTENSION = {"b": [1, {"y": None, "x": "<&>"}], "a": "\u2028é"}
INSECURE = ClusterConfig(server="https://cluster:6443", insecure_skip_tls_verify=True)
FULL_JSON = (
    '"cluster":{"server":"https://cluster:6443/prefix","tls-server-name":"kubernetes",'
    '"certificate-authority-data":"UEVN","proxy-url":"http://proxy:3128","disable-compression":true,"config":{"a":"\\u2028é","b":[1,{"x":"\\u003c\\u0026\\u003e","y":null}]}},'
)


@pytest.mark.parametrize("version", [V1, V1BETA1])
@pytest.mark.parametrize(
    ("cluster", "extension", "provided", "expected"),
    [
        (FULL, EXTENSION, False, ""),
        (FULL, EXTENSION, True, FULL_JSON),
        (
            INSECURE,
            None,
            True,
            '"cluster":{"server":"https://cluster:6443","insecure-skip-tls-verify":true,"config":null},',
        ),
        (CLUSTER, None, True, '"cluster":{"server":"https://cluster:6443","config":null},'),
    ],
)
def test_the_exec_info_equals_that_of_client_go(
    version: str, cluster: ClusterConfig, extension: object, provided: bool, expected: str
) -> None:
    entry = config("p", api_version=version, interactive_mode="Never", provide_cluster_info=provided)
    assert exec_info(entry, cluster_info(cluster, extension), interactive=False) == payload(
        False, version, expected
    )


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1.5, "1.5"),
        (100.0, "100"),
        (-0.0, "-0"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (-2.5e-12, "-2.5e-12"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (5e-324, "5e-324"),
        ((1 << 64) - 1, "18446744073709551615"),
        (1 << 64, "18446744073709552000"),
        (-(1 << 63), "-9223372036854775808"),
        (-(1 << 63) - 1, "-9223372036854776000"),
    ],
)
def test_numbers_in_the_exec_info_are_written_as_go_writes_them(number: float, expected: str) -> None:
    # Observed with kubectl 1.32.
    entry = config("p", interactive_mode="Never", provide_cluster_info=True)
    text = exec_info(entry, cluster_info(CLUSTER, {"a": [number]}), interactive=False)
    assert f'"config":{{"a":[{expected}]}}' in text


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://cluster/a?x=y", "https://cluster/a"),
        ("https://cluster?x=y", "https://cluster?x=y"),
        ("https://cluster/?x=y", "https://cluster/?x=y"),
    ],
)
def test_the_servers_query_is_in_the_exec_info_only_without_a_path(server: str, expected: str) -> None:
    # Observed with kubectl 1.32.
    assert cluster_info(ClusterConfig(server=server), None)["server"] == expected


def test_the_environment_has_the_variables_of_the_config_and_the_exec_info(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    environ = {**ENVIRON, "BOTH": "ours", "OURS": "1", "KUBERNETES_EXEC_INFO": "older"}
    entry = {"env": (("BOTH", "theirs"), ("EMPTY", ""), ("KUBERNETES_EXEC_INFO", "old")), "args": ("a b", "--c")}
    ask(auth(plugin, fields=entry, environ=environ), Server())
    record: Any = plugin.runs[0]
    assert record["args"] == ["a b", "--c"]
    assert {key: record["environ"].get(key) for key in ("BOTH", "OURS", "EMPTY")} == {
        "BOTH": "theirs",
        "OURS": "1",
        "EMPTY": "",
    }
    assert record["environ"]["KUBERNETES_EXEC_INFO"] == payload()


@pytest.mark.parametrize("version", [V1, V1BETA1])
@pytest.mark.parametrize("mode", ["Never", "IfAvailable"])
def test_without_a_terminal_a_plugin_is_not_interactive(tmp_path: Path, version: str, mode: str) -> None:
    plugin = write_plugin(tmp_path, TOKEN, version=version)
    ask(auth(plugin, fields={"api_version": version, "interactive_mode": mode}), Server())
    record: Any = plugin.runs[0]
    assert record["environ"]["KUBERNETES_EXEC_INFO"] == payload(False, version)


@pytest.mark.parametrize("version", [V1, V1BETA1])
def test_a_plugin_that_needs_a_terminal_does_not_run_without_one(tmp_path: Path, version: str) -> None:
    plugin = write_plugin(tmp_path, TOKEN, version=version)
    with pytest.raises(ConfigError, match=r"needs a terminal .*standard input is not a terminal"):
        ask(auth(plugin, fields={"api_version": version, "interactive_mode": "Always"}), Server())
    assert plugin.runs == []


def test_the_default_mode_is_if_available_for_v1beta1() -> None:
    assert config("p").interactive_mode == "IfAvailable"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"api_version": ""}, "apiVersion"),
        ({"api_version": "client.authentication.k8s.io/v1alpha1"}, "v1alpha1"),
        ({"command": ""}, "command"),
        ({"command": "a\0b"}, "NUL"),
        ({"api_version": V1}, "interactiveMode"),
        ({"interactive_mode": "invalid"}, "'invalid'"),
        ({"env": (("", "x"),)}, "env"),
    ],
)
def test_invalid_exec_entries_are_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config("p", **fields)


def test_an_environment_variable_may_be_empty() -> None:
    assert config("p", env=(("A", ""),)).env == (("A", ""),)


# The output of a plugin


T = {"token": "t0ken-s3cret"}
WRITTEN: list[tuple[str, object, str]] = [
    ("nothing", b"", "its output is empty"),
    ("white space", b"\n", "its output is empty"),
    ("text", b"Please log in first", "not an ExecCredential"),
    ("text before", b"Hello\n" + json.dumps(credential(T)).encode(), "is not JSON or YAML"),
    ("comment after JSON", json.dumps(credential(T)).encode() + b"\n# bye", "is not JSON or YAML"),
    ("not text", b"\xff\xfe\xfd", "is not JSON or YAML"),
    ("deep", b"[" * 100_000, "is not JSON or YAML"),
    ("deep JSON", b'{"a":' * 100_000, "is not JSON or YAML"),
    ("a list", [], "not an ExecCredential"),
    ("no kind", {"apiVersion": V1BETA1, "status": T}, "not an ExecCredential"),
    ("another kind", credential(T, kind="Status"), "not an ExecCredential"),
    ("no apiVersion", {"kind": "ExecCredential", "status": T}, "its output has no apiVersion"),
    ("another version", credential(T, V1), f"has the apiVersion {V1}; the kubeconfig requires {V1BETA1}"),
    ("an unknown version", credential(T, "v\x1b[1m"), "apiVersion v [1m;"),
    ("no status", {"kind": "ExecCredential", "apiVersion": V1BETA1}, "has no status"),
    ("null status", credential(None), "has no status"),
    ("wrong status", credential("t"), "not an object"),
    ("empty status", credential({}), "neither a token nor a certificate"),
    ("empty token", credential({"token": ""}), "neither a token nor a certificate"),
    ("token that is a number", credential({"token": 7}), "token is not text"),
    ("token with a line break", credential({"token": "a\nb"}), "the token contains white space"),
    ("certificate alone", credential({**T, "clientCertificateData": "c"}), "only one of"),
    ("key alone", credential({"clientKeyData": "k"}), "only one of"),
    ("bad PEM", credential({"clientCertificateData": "bad", "clientKeyData": "k3y-s3cret"}), "is not valid"),
    ("bad time", credential({**T, "expirationTimestamp": "tomorrow"}), "expirationTimestamp"),
    ("no such day", credential({**T, "expirationTimestamp": "2030-02-31T00:00:00Z"}), "expirationTimestamp"),
    ("empty time", credential({**T, "expirationTimestamp": ""}), "expirationTimestamp"),
    ("time as a number", credential({**T, "expirationTimestamp": 5}), "expirationTimestamp is not text"),
]


@pytest.mark.parametrize(("written", "problem"), [row[1:] for row in WRITTEN], ids=[row[0] for row in WRITTEN])
def test_invalid_output_is_refused(written: object, problem: str) -> None:
    output = written if isinstance(written, bytes) else json.dumps(written).encode()
    with pytest.raises(ConfigError) as caught:
        parse_credentials(output, V1BETA1)
    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("version", [V1, V1BETA1])
def test_a_token_is_read_in_both_api_versions(version: str) -> None:
    found = parse_credentials(json.dumps(credential({"token": "t"}, version)).encode(), version)
    assert (found.token, found.certificate, found.expires_at) == ("t", None, None)


@pytest.mark.parametrize(
    "written",
    [
        f"# Hello.\n{json.dumps(credential({'token': 't'}))}",
        f"---\n{json.dumps(credential({'token': 't'}))}",
        f"kind: ExecCredential\napiVersion: {V1BETA1}\nstatus:\n  token: t\n  expirationTimestamp: null\n",
        f"kind: ExecCredential\napiVersion: {V1BETA1}\nstatus:\n"
        "  token: t\n  expirationTimestamp: 1970-01-01T00:00:10Z\n",
    ],
)
def test_yaml_and_comments_before_json_are_accepted(written: str) -> None:
    found = parse_credentials(written.encode(), V1BETA1)
    assert (found.token, found.expires_at) == ("t", 10.0 if "1970" in written else None)


def test_a_certificate_is_plain_pem(ca: trustme.CA) -> None:
    status = pair(ca, "someone")
    found = parse_credentials(json.dumps(credential(status)).encode(), V1BETA1)
    assert found.certificate is not None
    assert found.certificate.certificate.decode() == status["clientCertificateData"]
    assert status["clientKeyData"][40:80] not in repr(found)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.5Z", 10.5),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1969-12-31T23:30:10-00:30", 10.0),
    ],
)
def test_the_expiration_may_have_any_form_of_rfc_3339(text: str, seconds: float) -> None:
    status = {"token": "t", "expirationTimestamp": text}
    assert parse_credentials(json.dumps(credential(status)).encode(), V1BETA1).expires_at == seconds


FAILURES: list[tuple[str, str, str]] = [
    ("exit code", "sys.exit(73)", "exited with code 73"),
    ("signal", "os.kill(os.getpid(), 9)", "signal 9"),
    ("no credentials", "print('{}')", "not an ExecCredential"),
    ("too much", "sys.stdout.write('x' * 3_000_000)", "more than 1 MiB"),
]


@pytest.mark.parametrize(("body", "problem"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_a_failing_plugin_is_a_config_error(tmp_path: Path, body: str, problem: str) -> None:
    server = Server()
    with pytest.raises(ConfigError) as caught:
        ask(auth(write_plugin(tmp_path, body)), server)
    assert problem in caught.value.message
    assert 'user "u"' in caught.value.message
    assert server.sent == []


@pytest.mark.parametrize("fields", [{"env": (("A=B", "x"),)}, {"args": ("a\0b",)}])
def test_a_plugin_that_cannot_be_run_is_a_config_error(tmp_path: Path, fields: dict[str, Any]) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    with pytest.raises(ConfigError, match="cannot be run: "):
        ask(auth(plugin, fields=fields), Server())
    assert plugin.runs == []


def test_the_next_request_runs_a_failed_plugin_again(tmp_path: Path) -> None:
    who = auth(write_plugin(tmp_path, f"sys.exit(1) if n == 1 else {TOKEN}"))
    with pytest.raises(ConfigError):
        ask(who, Server())
    assert ask(who, Server()) == 200


def test_the_standard_error_of_a_plugin_is_passed_through(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(auth(write_plugin(tmp_path, f"print('visit é', file=sys.stderr)\n{TOKEN}")), Server())
    assert capfd.readouterr().err == "visit é\n"


@pytest.mark.parametrize("command", ["no-such-plugin", "/no/such/plugin"])
def test_the_hint_for_a_missing_plugin_is_its_install_hint(command: str) -> None:
    with pytest.raises(ConfigError, match="was not found") as caught:
        ask(auth(command, fields={"install_hint": "Run \x1b[1minstall\x1b[0m\nthen again"}), Server())
    assert caught.value.hint == "Run [1minstall [0m\nthen again"


def test_a_plugin_without_execute_permission_is_an_error(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN)
    plugin.path.chmod(0o644)
    with pytest.raises(ConfigError, match="cannot be run: Permission denied"):
        ask(auth(plugin), Server())


def test_the_absolute_path_of_a_plugin_is_used_as_it_is(tmp_path: Path) -> None:
    inside = tmp_path / "real" / "inside"
    inside.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inside)
    write_plugin(tmp_path, "give({'token': 'wrong'})")
    write_plugin(tmp_path / "real", "give({'token': 'right'})")
    server = Server()
    ask(auth(f"{tmp_path}/link/../plugin"), server)
    assert server.sent == ["Bearer right"]


def test_a_bare_name_is_found_on_path(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TOKEN, name="kubelogin")
    assert ask(auth("kubelogin", environ={"PATH": f"{tmp_path}:{os.defpath}"}), Server()) == 200
    assert len(plugin.runs) == 1


@pytest.mark.parametrize("name", ["kubelogin", "gke-gcloud-auth-plugin"])
@pytest.mark.parametrize("entry", ["", ".", "bin"])
def test_a_plugin_in_an_empty_or_relative_entry_of_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, name: str
) -> None:
    (tmp_path / "good").mkdir()
    good = write_plugin(tmp_path / "good", TOKEN, name=name)
    bad = write_plugin(tmp_path / entry, TOKEN, name=name)
    monkeypatch.chdir(tmp_path)
    cluster = ClusterConfig(server=f"https://cluster{tmp_path}")
    with pytest.raises(ConfigError) as caught:
        ask(auth(name, cluster, environ={"PATH": f"{entry}:{good.path.parent}"}), Server())
    assert str(caught.value).startswith(f'user "u": the exec plugin {name}: found through ')
    assert str(bad.path) in str(caught.value)
    assert "name the plugin by an absolute path in the kubeconfig" in caught.value.hint
    assert bad.runs == good.runs == []

    assert ask(auth(name, cluster, environ={"PATH": f"{good.path.parent}:{entry}"}), Server()) == 200
    assert (len(bad.runs), len(good.runs)) == (0, 1)

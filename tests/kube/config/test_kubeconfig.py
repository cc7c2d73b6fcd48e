"""Parsing a kubeconfig: any bytes, any type in any field, and YAML as in kubectl."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.config.kubeconfig import parse
from gke_sandbox.kube.config.yaml import parse_kubeconfig_yaml


@given(st.binary(max_size=300) | st.text(alphabet="ab:-[]{}&*!|>'\"#%@?,\n \t0", max_size=60).map(str.encode))
def test_any_bytes_are_a_kubeconfig_or_a_config_error(content: bytes) -> None:
    with suppress(ConfigError):
        parse(content, Path("/f"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_selects_the_encoding(encoding: str) -> None:
    text = "current-context: zoë 😀\r\n"
    content = text.encode(encoding) if encoding == "utf-8-sig" else f"\ufeff{text}".encode(encoding)
    assert parse(content, Path("/f")).current_context == "zoë 😀"


@pytest.mark.parametrize("content", [b"\xff\xfea", b"\xff\xfe#\x00\x00\xd8#\x00", "a: b".encode("utf-16-le")])
def test_damaged_utf_16_and_utf_16_without_a_mark_are_config_errors(content: bytes) -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        parse(content, Path("/f"))


@pytest.mark.parametrize(
    "preferences",
    [
        5,
        "x",
        [],
        {"colors": 1},
        {"extensions": {}},
        {"extensions": [{"name": 5}]},
        {"extensions": [{"name": "a", "extension": 1}, {"name": "a", "extension": 2}]},
    ],
)
def test_invalid_preferences_are_a_config_error(preferences: object) -> None:
    content = yaml.safe_dump({"preferences": preferences}).encode()
    with pytest.raises(ConfigError, match=r"^/f: preferences"):
        parse(content, Path("/f"))


@pytest.mark.parametrize("preferences", [None, {}, {"colors": True, "extensions": None, "other": 5}])
def test_valid_preferences_are_ignored(preferences: object) -> None:
    content = yaml.safe_dump({"preferences": preferences, "current-context": "c"}).encode()
    assert parse(content, Path("/f")).current_context == "c"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e21", 1e21), ("-.5E3", -500.0), ("3.0e5", 300000.0), ("'1e3'", "1e3"), ("1e400", "1e400")],
)
def test_a_number_with_an_exponent_is_a_number_as_in_kubectl(text: str, value: object) -> None:
    assert parse_kubeconfig_yaml(text.encode(), "x") == value


# A valid value of each field.
TEXT, FLAG, TEXTS, MAPPING = "text", True, ["a"], {"a": "b"}
EXTENSIONS = [{"name": "a", "extension": 5}]
FIELDS: dict[str, dict[str, Any]] = {
    "cluster": {
        "server": TEXT,
        "tls-server-name": TEXT,
        "insecure-skip-tls-verify": FLAG,
        "certificate-authority": TEXT,
        "certificate-authority-data": "YWI=",
        "proxy-url": TEXT,
        "disable-compression": FLAG,
        "extensions": EXTENSIONS,
    },
    "user": {
        "client-certificate": TEXT,
        "client-certificate-data": "YWI=",
        "client-key": TEXT,
        "client-key-data": "YWI=",
        "token": TEXT,
        "tokenFile": TEXT,
        "as": TEXT,
        "as-uid": TEXT,
        "as-groups": TEXTS,
        "as-user-extra": {"a": TEXTS},
        "username": TEXT,
        "password": TEXT,
        "auth-provider": {"name": TEXT, "config": MAPPING},
        "exec": {
            "command": TEXT,
            "args": TEXTS,
            "env": [{"name": TEXT, "value": TEXT}],
            "apiVersion": TEXT,
            "installHint": TEXT,
            "provideClusterInfo": FLAG,
            "interactiveMode": TEXT,
        },
        "extensions": EXTENSIONS,
    },
    "context": {"cluster": TEXT, "user": TEXT, "namespace": TEXT, "extensions": EXTENSIONS},
}
ANY = st.recursive(
    st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(st.characters(codec="ascii"), max_size=5),
    lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(st.just("a"), inner, min_size=1),
    max_leaves=3,
)


def fits(value: Any, model: Any) -> bool:
    """Return whether a value has the type of `model`. PyYAML writes y and n without quotes; we read bools."""
    if isinstance(model, bool) and value in ("y", "Y", "n", "N"):
        return True
    if isinstance(model, list):
        return isinstance(value, list) and all(fits(item, model[0]) for item in value)
    if isinstance(model, dict):
        known = {"a": next(iter(model.values()))} if len(model) == 1 else {}
        return isinstance(value, dict) and all(fits(value[key], known[key]) for key in value if key in known)
    return type(value) is type(model)


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, fields in FIELDS.items() for key in fields])
@given(value=ANY)
@settings(max_examples=30)
def test_a_wrong_type_in_any_field_is_a_config_error_that_names_it(kind: str, key: str, value: object) -> None:
    assume(not fits(value, FIELDS[kind][key]))
    document = {f"{kind}s": [{"name": "x", kind: {key: value}}]}
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump(document).encode(), Path("/f"))
    assert str(caught.value).startswith(f'{kind} "x" in /f: {key}')


@pytest.mark.parametrize("key", FIELDS["user"]["exec"])
@given(value=ANY)
@settings(max_examples=30)
def test_a_wrong_type_in_an_exec_entry_is_a_config_error(key: str, value: object) -> None:
    assume(not fits(value, FIELDS["user"]["exec"][key]))
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump({"users": [{"name": "x", "user": {"exec": {key: value}}}]}).encode(), Path("/f"))
    assert str(caught.value).startswith(f'user "x" in /f: exec: {key}')


def test_every_field_is_read() -> None:
    document = {f"{kind}s": [{"name": "x", kind: fields}] for kind, fields in FIELDS.items()}
    config = parse(yaml.safe_dump(document).encode(), Path("/f"))
    for entry in (config.clusters["x"], config.users["x"], config.contexts["x"]):
        assert set(entry.fields) == set(FIELDS[entry.kind])


def test_values_are_read_as_in_kubectl() -> None:
    text = b"""
        a: 012
        b: 1.5
        c: 2024-01-01
        d: '012'
        e: 1:30
        f: [true, no, Y, 'y', ~, 0x10]
        1: one
        yes: [&x {a: 1, b: 1}, {b: 2, <<: *x}, {<<: [{a: 2}, {a: 3, c: 3}], b: 4}]
    """
    assert parse_kubeconfig_yaml(text, "F") == {
        "a": 10,
        "b": 1.5,
        "c": "2024-01-01",
        "d": "012",
        "e": "1:30",
        "f": [True, False, True, "y", None, 16],
        "1": "one",
        "true": [{"a": 1, "b": 1}, {"b": 1, "a": 1}, {"a": 2, "b": 4, "c": 3}],
    }


def test_only_the_first_document_is_read() -> None:
    assert parse_kubeconfig_yaml(b"a: b\n---\n[", "F") == {"a": "b"}
    assert parse_kubeconfig_yaml(b"---\n---\na: b", "F") is None

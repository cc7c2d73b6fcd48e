"""The syntax of names, with the valid and invalid examples of Kubernetes' tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gke_sandbox.kube import names

VALID: list[tuple[Callable[[str], list[str]], list[str]]] = [
    (names.dns_label, ["a", "0", "a-b", "a--1", "1", "a" * 63, "123-abc"]),
    (names.dns_subdomain, ["a", "a.b", "a-1.b-2.3", "a" * 253, "0.0"]),
    (
        names.label_key,
        ["simple", "now-with-dashes", "1", "a.b_c-D", "example.com/Name", "x" * 63, "a" * 253 + "/b"],
    ),
    (names.annotation_key, ["Simple", "Example.COM/Name", "adk.agent.google.com/invocation-id"]),
    (names.label_value, ["", "a", "A", "a.b_c-D", "1", "x" * 63]),
    (names.env_name, ["A", "_a", "my.env-name", "-x", ".x", "a1"]),
]
INVALID: list[tuple[Callable[[str], list[str]], list[str]]] = [
    (names.dns_label, ["", "A", "a.b", "-a", "a-", "a_b", "a\n", "ä", "a" * 64, " a"]),
    (names.dns_subdomain, ["", "A", "a..b", ".a", "a.", "a-.b", "a_b", "a\n", "a" * 254]),
    (names.label_key, ["", "/a", "a/", "a/b/c", "-a", "a-", "é", "x" * 64, "A.com/b", "a b", "a" * 254 + "/b"]),
    (names.annotation_key, ["", "/a", "a/b/c", "a b"]),
    (names.label_value, ["-", "a-", "_a", "a b", "a/b", "x" * 64, "a\n", "é"]),
    (names.env_name, ["", "1a", "a b", "a=b", "..", ".", "..a", "é", "a\n"]),
]


@pytest.mark.parametrize(("rule", "value"), [(rule, value) for rule, values in VALID for value in values])
def test_a_valid_name_has_no_errors(rule: Callable[[str], list[str]], value: str) -> None:
    assert rule(value) == []


@pytest.mark.parametrize(("rule", "value"), [(rule, value) for rule, values in INVALID for value in values])
def test_an_invalid_name_has_errors(rule: Callable[[str], list[str]], value: str) -> None:
    assert rule(value)


def test_the_messages_are_those_of_the_api_server() -> None:
    """The first is from a recording. The server does write two spaces before `or`."""
    assert names.dns_subdomain("Not_A_Name") == [
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
        "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]
    assert names.dns_label("a.b") == ["must not contain dots"]
    assert names.label_value("x" * 64) == ["must be no more than 63 characters"]
    assert names.env_name("..") == ["must not be '..'"]
    assert names.label_key("/a") == ["prefix part must be non-empty"]
    assert names.env_name("1a") == [
        "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and "
        "must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for "
        "validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')"
    ]

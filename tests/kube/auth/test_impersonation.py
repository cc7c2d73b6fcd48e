"""User impersonation: the headers, their escaping, and when they are sent."""

from __future__ import annotations

import httpx
import pytest

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.auth.impersonation import Impersonation
from gke_sandbox.kube.auth.static import BearerToken
from gke_sandbox.kube.client import KubeClient
from gke_sandbox.kube.config.types import ClusterConfig
from gke_sandbox.kube.resources import PODS

from ..servers import MemoryTransport, ScriptedResponse

pytestmark = pytest.mark.anyio

FULL = Impersonation(
    user="jane",
    uid="u-1",
    groups=("admins", "devs"),
    extra={"Sc/ope": ("a", "b"), "plain": ("c",)},
)


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (Impersonation("jane"), [("Impersonate-User", "jane")]),
        (
            FULL,
            [
                ("Impersonate-User", "jane"),
                ("Impersonate-Uid", "u-1"),
                ("Impersonate-Group", "admins"),
                ("Impersonate-Group", "devs"),
                ("Impersonate-Extra-Sc%2fope", "a"),
                ("Impersonate-Extra-Sc%2fope", "b"),
                ("Impersonate-Extra-plain", "c"),
            ],
        ),
    ],
)
def test_headers(who: Impersonation, expected: list[tuple[str, str]]) -> None:
    assert who.headers() == expected


@pytest.mark.parametrize(
    ("key", "escaped"),
    [
        ("alpha-1.2_3", "alpha-1.2_3"),
        ("example.com/scope", "example.com%2fscope"),
        ("100%", "100%25"),
        ("already%2f", "already%252f"),
        ("a b", "a%20b"),
        ("a:b", "a%3ab"),
        ("é", "%c3%a9"),
        ("line\nbreak", "line%0abreak"),
        ("!#$&'*+-.^_`|~", "!#$&'*+-.^_`|~"),
    ],
)
def test_characters_that_are_invalid_in_a_header_name_are_escaped(key: str, escaped: str) -> None:
    # https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    who = Impersonation("jane", extra={key: ("v",)})
    assert who.headers()[1] == (f"Impersonate-Extra-{escaped}", "v")


def test_white_space_around_values_is_removed() -> None:
    # https://pkg.go.dev/net/http#Header.Write
    who = Impersonation(
        " jane\t", uid="\tu-1 ", groups=(" dev team ", " "), extra={" k": ("  v", "\u00a0w\u00a0")}
    )
    assert who.headers() == [
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "u-1"),
        ("Impersonate-Group", "dev team"),
        ("Impersonate-Group", ""),
        ("Impersonate-Extra-%20k", "v"),
        ("Impersonate-Extra-%20k", "\u00a0w\u00a0"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"user": " \t"},
        {"user": "jane\udc80"},
        {"user": "", "groups": ("admins",)},
        {"user": "", "uid": "1"},
        {"user": "", "extra": {"a": ("b",)}},
        {"user": "jane\r\nX-Evil: 1"},
        {"user": "jane", "groups": ("a\nb",)},
        {"user": "jane", "extra": {"a": ("\x00",)}},
    ],
)
def test_invalid_impersonation_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Impersonation(**fields)  # type: ignore[arg-type]


async def sent(config: ClusterConfig) -> httpx.Headers:
    server = MemoryTransport([ScriptedResponse(body={"kind": "Pod"})])
    async with KubeClient(config, transport=server) as client:
        await client.get(PODS, "ns", "a")
    return server.requests[0].headers


async def test_a_client_sends_the_headers_with_its_credentials() -> None:
    headers = await sent(ClusterConfig(server="https://cluster", auth=BearerToken("t0ken"), impersonation=FULL))
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers.get_list("Impersonate-Group") == ["admins", "devs"]
    assert headers.get_list("Impersonate-Extra-Sc%2fope") == ["a", "b"]


async def test_the_headers_are_sent_over_plain_http_but_credentials_are_not() -> None:
    headers = await sent(
        ClusterConfig(server="http://cluster", auth=BearerToken("t0ken"), impersonation=Impersonation("jane"))
    )
    assert headers["Impersonate-User"] == "jane"
    assert "Authorization" not in headers


async def test_values_are_sent_as_utf_8() -> None:
    headers = await sent(ClusterConfig(server="https://cluster", impersonation=Impersonation("zoë")))
    assert (b"Impersonate-User", "zoë".encode()) in headers.raw


async def test_without_impersonation_no_header_is_sent() -> None:
    headers = await sent(ClusterConfig(server="https://cluster"))
    assert not [name for name in headers if name.startswith("impersonate")]

"""What credentials say of their own end."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timezone

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox.kube.auth.expiry import certificate_expiry, token_expiry


def jwt(claims: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def test_a_web_token_says_when_it_ends() -> None:
    assert token_expiry(jwt({"exp": 1900000000})) == datetime(2030, 3, 17, 17, 46, 40, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b.c",
        "..",
        "ya29.a.b",
        jwt({}),
        jwt([]),
        jwt({"exp": "soon"}),
        jwt({"exp": True}),
        jwt({"exp": 1e300}),
        jwt({"exp": None}),
        "e30.W1tb.x",
        "é.é.é",
    ],
)
def test_another_token_does_not(token: str) -> None:
    assert token_expiry(token) is None


@pytest.mark.parametrize("year", [2049, 2050, 2099])
def test_a_certificate_says_when_it_ends(year: int) -> None:
    """Years from 2050 on are written in another form."""
    end = datetime(year, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    leaf = trustme.CA().issue_cert("someone", not_after=end)
    assert certificate_expiry(leaf.cert_chain_pems[0].bytes()) == end


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no PEM",
        b"-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_does_not(text: bytes) -> None:
    assert certificate_expiry(text) is None


@given(st.binary(max_size=60))
def test_nothing_breaks_it(der: bytes) -> None:
    text = base64.b64encode(der)
    certificate_expiry(b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n")
    token_expiry(f"a.{text.decode()}.b")

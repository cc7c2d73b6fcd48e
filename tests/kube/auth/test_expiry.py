"""The expiry of credentials."""

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


def test_the_expiry_of_a_json_web_token() -> None:
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
def test_other_tokens_have_no_expiry(token: str) -> None:
    assert token_expiry(token) is None


@pytest.mark.parametrize("year", [2049, 2050, 2099])
def test_the_expiry_of_a_certificate(year: int) -> None:
    """Years from 2050 have another format."""
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
def test_an_invalid_certificate_has_no_expiry(text: bytes) -> None:
    assert certificate_expiry(text) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_accepted(der: bytes) -> None:
    text = base64.b64encode(der)
    certificate_expiry(b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n")
    token_expiry(f"a.{text.decode()}.b")

"""The metadata server: the service account of a machine in Google Cloud, or of a pod."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from pytest_httpx import HTTPXMock

from gke_sandbox.errors import ConfigError, NetworkError
from gke_sandbox.kube.auth.google import find_credentials, google_auth
from gke_sandbox.kube.auth.google_base import SCOPES
from gke_sandbox.kube.auth.metadata import MetadataServer

TOKEN = json.loads((Path(__file__).parents[3] / "fixtures" / "google" / "token.json").read_text())


def environ(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a program without a credentials file."""
    return {"CLOUDSDK_CONFIG": str(folder / "gcloud"), **more}


def metadata(**more: str) -> tuple[MetadataServer, list[float]]:
    """Return a metadata server, and the list of its delays."""
    delays: list[float] = []
    return MetadataServer({"GCE_METADATA_HOST": "metadata.test", **more}, sleep=delays.append), delays


def test_the_token_comes_from_the_metadata_server(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(url="http://169.254.169.254/", headers={"Metadata-Flavor": "Google"})
    httpx_mock.add_response(json=TOKEN)
    auth = google_auth(environ=environ(tmp_path))
    assert auth.token() == "ya29.first"
    request = httpx_mock.get_requests()[1]
    assert request.url.host == "metadata.google.internal"
    assert request.url.path == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert request.url.params["scopes"] == ",".join(SCOPES)
    assert request.headers["Metadata-Flavor"] == "Google"
    assert "metadata.google.internal" in repr(auth)


def test_the_metadata_server_can_be_configured(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(json=TOKEN)
    assert google_auth(environ=environ(tmp_path, GCE_METADATA_HOST="127.0.0.1:8080")).token() == "ya29.first"
    assert httpx_mock.get_requests()[0].url.netloc == b"127.0.0.1:8080"


def test_the_metadata_server_of_another_cloud_is_ignored(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(url="http://169.254.169.254/", text="1.0 latest")
    with pytest.raises(ConfigError, match="no metadata server responds at 169") as caught:
        find_credentials(environ(tmp_path), extra_hint="Or do something else.")
    assert "GOOGLE_APPLICATION_CREDENTIALS is not set" in caught.value.message
    assert str(tmp_path / "gcloud") in caught.value.message
    assert "gcloud auth application-default login" in caught.value.hint
    assert caught.value.hint.endswith("Or do something else.")


def test_the_metadata_server_can_be_disabled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NO_GCE_CHECK is set"):
        google_auth(environ=environ(tmp_path, NO_GCE_CHECK="true")).token()


def test_a_missing_metadata_server_is_tried_three_times(httpx_mock: HTTPXMock) -> None:
    for _ in range(3):
        httpx_mock.add_exception(httpx.ConnectTimeout("silence"), url="http://192.0.2.1/")
    server, delays = metadata(GCE_METADATA_HOST="", GCE_METADATA_IP="192.0.2.1")
    assert not server.is_available()
    assert delays == [0.5, 1.0]


def test_requests_to_a_starting_metadata_server_are_retried(httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ConnectError("refused"))
    httpx_mock.add_response(status_code=503)
    httpx_mock.add_response(json=TOKEN)
    server, delays = metadata()
    assert server.fetch().value == "ya29.first"
    assert delays == [1.0, 2.0]


def test_a_metadata_server_that_never_responds_is_a_network_error(httpx_mock: HTTPXMock) -> None:
    for _ in range(5):
        httpx_mock.add_exception(httpx.ConnectError("refused"))
    with pytest.raises(NetworkError, match=r"metadata\.test: refused") as caught:
        metadata()[0].fetch()
    assert "NetworkPolicy" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (404, b"", "has no service account"),
        (403, b"Permission denied", "returned no token: HTTP 403: Permission denied"),
        (200, b'{"access_token": "ya29.secret"}', "returned an invalid token response"),
        (200, b"ya29.secret", "returned an invalid token response"),
        (200, b'{"access_token": "ya29 secret", "expires_in": 5}', "its token contains white space"),
    ],
)
def test_a_response_without_a_token_is_a_config_error(
    httpx_mock: HTTPXMock, status: int, content: bytes, message: str
) -> None:
    httpx_mock.add_response(status_code=status, content=content)
    with pytest.raises(ConfigError, match=message) as caught:
        metadata()[0].fetch()
    assert "ya29" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GCE_METADATA_HOST", "no host:x", "is not a host name"),
        ("GCE_METADATA_TIMEOUT", "soon", "GCE_METADATA_TIMEOUT is not a number"),
    ],
)
def test_invalid_environment_variables_are_config_errors(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metadata(**{name: value})[0].fetch()

"""Application Default Credentials: where they are found, and when tokens are fetched."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any
from urllib.parse import parse_qs

import anyio
import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pytest_httpx import HTTPXMock

from gke_sandbox.errors import ConfigError, NetworkError, SandboxError
from gke_sandbox.kube.auth.google import REFRESH_EARLY, GoogleAuth, find_credentials, google_auth
from gke_sandbox.kube.auth.google_base import SCOPES, Token

FIXTURES = Path(__file__).parents[3] / "fixtures" / "google"
SERVER = "https://203.0.113.10/version"
TOKEN_URL = "https://oauth2.googleapis.com/token"
STS_URL = "https://sts.googleapis.com/v1/token"
IMPERSONATION_URL = (
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
    "runner@my-project.iam.gserviceaccount.com:generateAccessToken"
)
USER = {
    "type": "authorized_user",
    "client_id": "client",
    "client_secret": "user-secret",
    "refresh_token": "refresh-secret",
    "quota_project_id": "billing",
}


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def key() -> str:
    """Return a private key in the format of a service account's file."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def service_account(key: str) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "private_key": key,
        "client_email": "runner@my-project.iam.gserviceaccount.com",
        "token_uri": TOKEN_URL,
    }


def environ(folder: Path, content: object = None, **more: str) -> dict[str, str]:
    """Return an environment with `content` as GOOGLE_APPLICATION_CREDENTIALS, or without credentials."""
    found = {"CLOUDSDK_CONFIG": str(folder / "gcloud"), **more}
    if content is not None:
        file = folder / "credentials.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        found["GOOGLE_APPLICATION_CREDENTIALS"] = str(file)
    return found


def sent_form(httpx_mock: HTTPXMock) -> dict[str, list[str]]:
    return parse_qs(httpx_mock.get_requests()[0].content.decode())


# Files


def test_a_service_account_key_requests_both_scopes(httpx_mock: HTTPXMock, key: str, tmp_path: Path) -> None:
    httpx_mock.add_response(url=TOKEN_URL, method="POST", json=fixture("token"))
    assert google_auth(environ=environ(tmp_path, service_account(key))).token() == "ya29.first"
    from google.auth import jwt

    claims = jwt.decode(sent_form(httpx_mock)["assertion"][0], verify=False)  # type: ignore[no-untyped-call]
    assert claims["scope"].split() == list(SCOPES)
    assert claims["iss"] == "runner@my-project.iam.gserviceaccount.com"


def test_user_credentials_request_no_scopes(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    """The user granted them at log-in; a request for others would be refused."""
    httpx_mock.add_response(url=TOKEN_URL, method="POST", json=fixture("token"))
    auth = google_auth(environ=environ(tmp_path, USER))
    assert auth.token() == "ya29.first"
    assert auth.quota_project == "billing"
    form = sent_form(httpx_mock)
    assert form["refresh_token"] == ["refresh-secret"]
    assert "scope" not in form


def test_the_credentials_file_of_gcloud_is_found(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(url=TOKEN_URL, method="POST", json=fixture("token"))
    (tmp_path / "gcloud").mkdir()
    (tmp_path / "gcloud" / "application_default_credentials.json").write_text(json.dumps(USER))
    assert google_auth(environ=environ(tmp_path)).token() == "ya29.first"


def test_the_credentials_file_of_gcloud_is_found_in_the_home_directory(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "gcloud"
    folder.mkdir(parents=True)
    (folder / "application_default_credentials.json").write_text(json.dumps(USER))
    source = find_credentials({"HOME": str(tmp_path)})
    assert source.description == f"user credentials in {folder}/application_default_credentials.json"


def test_the_quota_project_comes_from_the_environment_or_the_file(tmp_path: Path) -> None:
    source = find_credentials(environ(tmp_path, USER, GOOGLE_CLOUD_QUOTA_PROJECT="other"))
    assert source.quota_project == "other"


def test_workload_identity_federation(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    (tmp_path / "subject").write_text("subject-secret")
    pool = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": STS_URL,
        "credential_source": {"file": str(tmp_path / "subject")},
    }
    httpx_mock.add_response(url=STS_URL, method="POST", json=fixture("sts_token"))
    assert google_auth(environ=environ(tmp_path, pool)).token() == "ya29.federated"
    form = sent_form(httpx_mock)
    assert form["subject_token"] == ["subject-secret"]
    assert form["scope"] == [" ".join(SCOPES)]


def test_federation_without_its_subject_token_file_is_an_error(tmp_path: Path) -> None:
    pool = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": STS_URL,
        "credential_source": {"file": str(tmp_path / "subject")},
    }
    with pytest.raises(ConfigError, match=r"workload identity federation in .*subject"):
        google_auth(environ=environ(tmp_path, pool)).token()


def executable(command: str) -> dict[str, object]:
    return {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": STS_URL,
        "credential_source": {"executable": {"command": command, "timeout_millis": 5000}},
    }


def write_executable(path: Path) -> None:
    output = {
        "version": 1,
        "success": True,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": str(path),
        "expiration_time": 4_000_000_000,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s' '{json.dumps(output)}'\necho \"$0 $@\" > {path}.log\n")
    path.chmod(0o755)


@pytest.mark.parametrize("after", ["", ":", ":bin"])
def test_federation_runs_a_program_found_through_an_absolute_entry_of_path(
    after: str, httpx_mock: HTTPXMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("good", "bin", "."):
        write_executable(tmp_path / folder / "subject-token")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/good{after}")
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    httpx_mock.add_response(url=STS_URL, method="POST", json=fixture("sts_token"))
    auth = google_auth(environ=environ(tmp_path, executable("subject-token --flag")))
    assert auth.token() == "ya29.federated"
    assert sent_form(httpx_mock)["subject_token"] == [f"{tmp_path}/good/subject-token"]
    assert (tmp_path / "good" / "subject-token.log").read_text() == f"{tmp_path}/good/subject-token --flag\n"


@pytest.mark.parametrize("entry", ["", ".", "bin"])
def test_federation_refuses_a_program_found_through_an_empty_or_relative_entry_of_path(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("good", "bin", "."):
        write_executable(tmp_path / folder / "subject-token")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{entry}:{tmp_path}/good")
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    with pytest.raises(ConfigError, match=r"subject-token: found through .* of PATH, as ") as caught:
        google_auth(environ=environ(tmp_path, executable("subject-token"))).token()
    assert str(tmp_path / "credentials.json") in caught.value.message
    assert "name the program by an absolute path" in caught.value.hint
    assert list(tmp_path.rglob("*.log")) == []


def impersonated(source: object) -> dict[str, object]:
    return {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": IMPERSONATION_URL,
        "source_credentials": source,
    }


def test_an_impersonated_service_account(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(url=TOKEN_URL, method="POST", json=fixture("token"))
    httpx_mock.add_response(url=IMPERSONATION_URL, method="POST", json=fixture("impersonated_token"))
    assert google_auth(environ=environ(tmp_path, impersonated(USER))).token() == "ya29.impersonated"
    body = json.loads(httpx_mock.get_requests()[1].content)
    assert body["scope"] == list(SCOPES)


def test_the_hint_for_a_refused_impersonation_names_the_role(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(url=TOKEN_URL, method="POST", json=fixture("token"))
    httpx_mock.add_response(
        url=IMPERSONATION_URL, method="POST", status_code=403, json=fixture("impersonation_denied")
    )
    with pytest.raises(ConfigError, match=r"iam\.serviceAccounts\.getAccessToken") as caught:
        google_auth(environ=environ(tmp_path, impersonated(USER))).token()
    assert "roles/iam.serviceAccountTokenCreator" in caught.value.hint


def test_the_hint_for_an_expired_log_in_is_to_log_in_again(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(url=TOKEN_URL, status_code=400, json=fixture("invalid_grant"))
    with pytest.raises(ConfigError, match="invalid_grant: Token has been expired or revoked") as caught:
        google_auth(environ=environ(tmp_path, USER)).token()
    assert "gcloud auth application-default login" in caught.value.hint
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_response_without_a_token_is_not_shown(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_response(url=TOKEN_URL, json={"accessToken": "ya29.secret"})
    with pytest.raises(ConfigError, match="No access token") as caught:
        google_auth(environ=environ(tmp_path, USER)).token()
    assert "ya29" not in repr(caught.value)
    assert caught.value.__suppress_context__


def test_an_unreachable_google_is_a_network_error(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    httpx_mock.add_exception(httpx.ConnectError("no route"))
    with pytest.raises(NetworkError, match=r"oauth2\.googleapis\.com: no route") as caught:
        google_auth(environ=environ(tmp_path, USER)).token()
    assert caught.value.sent is False


@pytest.mark.parametrize("proxy", ["socks9://user:word@proxy.test", "http://proxy.test:port"])
def test_an_unusable_proxy_is_a_config_error(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match="the proxy in the environment") as caught:
        google_auth(environ=environ(tmp_path, USER)).token()
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ({}, "its type is None, not one of service_account, authorized_user"),
        ({"type": "gdch_service_account"}, "its type is 'gdch_service_account', not one of service_account"),
        ({"type": "service_account"}, "cannot be used"),
        ({"type": "authorized_user", "client_id": "x"}, "cannot be used"),
        ({"type": "external_account"}, "cannot be used"),
        ({"type": "external_account", "credential_source": {"certificate": {}}}, r"X\.509 certificate is not"),
        ({"type": "external_account_authorized_user"}, "cannot be used"),
        ({"type": "impersonated_service_account"}, "no source_credentials"),
        ({**impersonated(USER), "service_account_impersonation_url": "x"}, "does not end in"),
    ],
)
def test_an_invalid_credentials_file_is_a_config_error(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        google_auth(environ=environ(tmp_path, content)).token()
    assert str(tmp_path / "credentials.json") in caught.value.message


def test_a_broken_private_key_is_not_shown(key: str, tmp_path: Path) -> None:
    broken = key.replace("A", "!", 3)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        google_auth(environ=environ(tmp_path, service_account(broken))).token()
    assert broken.splitlines()[3] not in str(caught.value)


def test_the_file_in_the_environment_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GOOGLE_APPLICATION_CREDENTIALS: cannot read"):
        google_auth(environ={"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none")}).token()


# Refreshes


class Counted:
    """Credentials with numbered tokens that expire after an hour. `before` runs before each fetch."""

    description = "numbered tokens"
    quota_project: str | None = None

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.fetched = 0
        self.now = 0.0
        self.fails = False
        self._before = before

    def clock(self) -> float:
        return self.now

    def fetch(self) -> Token:
        self._before()
        self.fetched += 1
        if self.fails:
            raise NetworkError("no way to Google", sent=False)
        return Token(f"t{self.fetched}", self.now + 3600)

    def auth(self) -> GoogleAuth:
        return GoogleAuth(lambda: self, clock=self.clock)


async def token_async(auth: GoogleAuth) -> str:
    """Return the token that an async request would send."""
    flow = auth.async_auth_flow(httpx.Request("GET", SERVER))
    request = await anext(flow)
    await flow.aclose()
    return request.headers["Authorization"].removeprefix("Bearer ")


def test_a_token_is_fetched_when_needed_and_cached() -> None:
    source = Counted()
    auth = source.auth()
    assert source.fetched == 0
    assert [auth.token(), auth.token()] == ["t1", "t1"]


def test_a_token_is_refreshed_before_it_expires() -> None:
    source = Counted()
    auth = source.auth()
    auth.token()
    source.now = 3600 - REFRESH_EARLY - 1
    assert auth.token() == "t1"
    source.now = 3600 - REFRESH_EARLY
    assert auth.token() == "t2"


def test_the_old_token_is_used_if_an_early_refresh_fails(caplog: pytest.LogCaptureFixture) -> None:
    source = Counted()
    auth = source.auth()
    auth.token()
    source.fails = True
    source.now = 3500
    assert [auth.token(), auth.token()] == ["t1", "t1"]
    assert source.fetched == 2
    assert "could not be refreshed" in caplog.text
    source.now = 3511
    auth.token()
    assert source.fetched == 3
    source.now = 3600
    with pytest.raises(NetworkError):
        auth.token()


def test_waiting_threads_share_one_refresh() -> None:
    entered, go_on = Event(), Event()

    def before() -> None:
        entered.set()
        assert go_on.wait(10)

    source = Counted(before)
    auth = source.auth()
    tokens: list[str] = []
    together = Barrier(17)

    def work() -> None:
        together.wait(10)
        tokens.append(auth.token())

    threads = [Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    together.wait(10)
    assert entered.wait(10)
    go_on.set()
    for thread in threads:
        thread.join()
    assert tokens == ["t1"] * 16
    assert source.fetched == 1


@pytest.mark.anyio
async def test_waiting_tasks_share_one_refresh_that_does_not_block_the_event_loop() -> None:
    source = Counted(lambda: anyio.from_thread.run_sync(lambda: None))
    auth = source.auth()
    tokens: list[str] = []

    async def work() -> None:
        tokens.append(await token_async(auth))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(work)
    assert tokens == ["t1"] * 100
    assert source.fetched == 1


@pytest.mark.anyio
async def test_a_cancelled_request_does_not_wait_for_the_refresh() -> None:
    go_on = Event()

    def before() -> None:
        assert go_on.wait(10)

    source = Counted(before)
    auth = source.auth()
    with anyio.move_on_after(0.01) as scope:
        await token_async(auth)
    assert scope.cancelled_caught
    go_on.set()
    assert await token_async(auth) == "t1"
    assert source.fetched == 1


def test_one_auth_works_in_several_event_loops() -> None:
    source = Counted()
    auth = source.auth()
    assert anyio.run(token_async, auth, backend="asyncio") == "t1"
    source.now = 3600
    assert anyio.run(token_async, auth, backend="trio") == "t2"


def test_credentials_are_loaded_again_after_a_failure() -> None:
    """A wrong file may have been corrected."""
    source = Counted()
    looked: list[int] = []

    def find() -> Counted:
        looked.append(1)
        if len(looked) == 1:
            raise ConfigError("none yet")
        return source

    auth = GoogleAuth(find, clock=source.clock)
    with pytest.raises(ConfigError, match="none yet"):
        auth.token()
    assert auth.token() == "t1"


def test_a_token_that_is_invalid_in_a_header_is_refused_and_not_shown() -> None:
    class Wrong(Counted):
        def fetch(self) -> Token:
            return Token("ya29\r\nsecret")

    with pytest.raises(ConfigError, match="white space") as caught:
        Wrong().auth().token()
    assert "secret" not in str(caught.value)


# Requests


def server(accepts: str, seen: list[str]) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        assert request.content == b"body"
        return httpx.Response(200 if seen[-1] == f"Bearer {accepts}" else 401)

    return httpx.MockTransport(handle)


def test_a_refused_token_is_refreshed_and_the_request_is_retried_once() -> None:
    seen: list[str] = []
    source = Counted()
    with httpx.Client(transport=server("t2", seen), auth=source.auth()) as client:
        assert client.post(SERVER, content=b"body").status_code == 200
    assert seen == ["Bearer t1", "Bearer t2"]


def test_a_second_401_is_returned() -> None:
    seen: list[str] = []
    with httpx.Client(transport=server("none", seen), auth=Counted().auth()) as client:
        assert client.post(SERVER, content=b"body").status_code == 401
    assert seen == ["Bearer t1", "Bearer t2"]


def test_a_request_is_not_retried_with_the_same_token() -> None:
    class Same(Counted):
        def fetch(self) -> Token:
            # A metadata server returns its token with the seconds that are left, so that the time differs a bit.
            self.fetched += 1
            return Token("same", 3600 + 0.001 * self.fetched)

    seen: list[str] = []
    with httpx.Client(transport=server("none", seen), auth=Same().auth()) as client:
        assert client.post(SERVER, content=b"body").status_code == 401
    assert seen == ["Bearer same"]


@pytest.mark.anyio
async def test_many_refused_requests_refresh_the_token_once() -> None:
    seen: list[str] = []
    source = Counted()
    answers: list[int] = []
    async with httpx.AsyncClient(transport=server("t2", seen), auth=source.auth()) as client:

        async def post() -> None:
            answers.append((await client.post(SERVER, content=b"body")).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(post)
    assert answers == [200] * 20
    assert source.fetched == 2


@pytest.mark.anyio
async def test_without_a_token_no_request_is_sent() -> None:
    seen: list[str] = []
    source = Counted()
    source.fails = True
    async with httpx.AsyncClient(transport=server("t1", seen), auth=source.auth()) as client:
        with pytest.raises(SandboxError, match="no way to Google"):
            await client.post(SERVER, content=b"body")
    assert seen == []


def test_no_repr_or_log_contains_a_token(
    httpx_mock: HTTPXMock, key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    httpx_mock.add_response(url=TOKEN_URL, json=fixture("token"))
    source = find_credentials(environ(tmp_path, service_account(key)))
    auth = GoogleAuth(lambda: source)
    auth.token()
    shown = repr(auth) + repr(source) + repr(source.fetch.__self__) + caplog.text  # type: ignore[attr-defined]
    assert "ya29" not in shown + repr(Token("ya29.first"))
    assert "PRIVATE KEY" not in shown

"""A token file that another program renews, with the cases of client-go's cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.auth.static import TOKEN_FILE_INTERVAL, TokenFile


def file(folder: Path, clock: list[float], content: str = "one", initial: str = "") -> TokenFile:
    (folder / "token").write_text(content)
    return TokenFile(folder / "token", source="tokenFile", initial=initial, clock=lambda: clock[0])


@pytest.mark.parametrize(
    ("share", "token"),
    [(0.0, "one"), (0.8, "one"), (1.0, "two"), (2.0, "two")],
)
def test_a_token_is_read_again_after_the_interval(tmp_path: Path, share: float, token: str) -> None:
    # client-go's TestCachingTokenSource: the file is not read before the interval is over.
    clock = [0.0]
    tokens = file(tmp_path, clock)
    assert tokens.token() == "one"
    (tmp_path / "token").write_text("two")
    clock[0] = share * TOKEN_FILE_INTERVAL
    assert tokens.token() == token


def test_an_unreadable_file_without_an_earlier_token_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tokenFile"):
        file(tmp_path, [0.0], "").token()


def test_many_threads_get_one_token(tmp_path: Path) -> None:
    tokens = file(tmp_path, [0.0])
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda _: tokens.token(), range(100))) == {"one"}


class Server:
    """Refuse all tokens except one."""

    def __init__(self, accepted: str) -> None:
        self.accepted = accepted
        self.sent: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.headers["Authorization"].removeprefix("Bearer "))
        return httpx.Response(200 if self.sent[-1] == self.accepted else 401)


def ask(auth: httpx.Auth, server: Server) -> int:
    with httpx.Client(transport=httpx.MockTransport(server), auth=auth) as client:
        return client.get("https://cluster/").status_code


def test_after_a_401_the_file_is_read_again_and_the_request_is_retried_once(tmp_path: Path) -> None:
    tokens, server = file(tmp_path, [0.0]), Server("two")
    assert tokens.token() == "one"
    (tmp_path / "token").write_text("two")
    assert ask(tokens, server) == 200
    assert server.sent == ["one", "two"]
    assert tokens.token() == "two"


def test_a_401_is_returned_if_the_file_still_contains_the_same_token(tmp_path: Path) -> None:
    tokens, server = file(tmp_path, [0.0]), Server("two")
    assert ask(tokens, server) == 401
    assert server.sent == ["one"]


def test_a_401_is_returned_if_the_file_cannot_be_read(tmp_path: Path) -> None:
    tokens, server = file(tmp_path, [0.0], initial="one"), Server("two")
    (tmp_path / "token").unlink()
    assert ask(tokens, server) == 401
    assert server.sent == ["one"]

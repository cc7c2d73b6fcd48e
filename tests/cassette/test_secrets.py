"""Secrets: nothing that looks like one is written."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gke_sandbox import AsyncSandbox
from gke_sandbox._wire.frames import encode
from gke_sandbox.cassette.format import load, write
from gke_sandbox.cassette.secrets import find_secret, find_secret_in_log
from gke_sandbox.errors import CassetteError
from tests.pods import START, out, program

from .kit import record, replay

TOKEN = "ghp_" + "a" * 36
CUT = 128_000
LARGE = 1_100_000


def refused(path: Path, code: str = "x", printed: bytes = out("fine"), **given: Any) -> CassetteError:
    async def main(sandbox: AsyncSandbox) -> None:
        await sandbox.run(code, **given)

    with pytest.raises(CassetteError) as caught:
        record(path / "c.yaml", main, script=program(printed))
    assert not (path / "c.yaml").exists()
    assert TOKEN not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("padding", [b"x", b"\xff"], ids=["text", "bytes"])
def test_a_secret_in_a_compressed_file_is_found(tmp_path: Path, padding: bytes) -> None:
    error = refused(tmp_path, files={"f.bin": padding * LARGE + b"\n" + TOKEN.encode()})
    assert "contains a GitHub token, at " in str(error)
    assert "files.f.bin" in str(error)


def test_a_secret_in_compressed_code_is_found(tmp_path: Path) -> None:
    assert "a GitHub token" in str(refused(tmp_path, f"{'#' * LARGE}\n'{TOKEN}'"))


def test_a_secret_is_found_in_code_that_is_split(tmp_path: Path) -> None:
    assert "a GitHub token" in str(refused(tmp_path, f"{'#' * (CUT - 10)}\n'{TOKEN}'"))


def test_a_secret_is_found_in_a_file_or_stdin_that_is_split(tmp_path: Path) -> None:
    content = b"\n" * (CUT // 4 * 3 - 10) + TOKEN.encode() + b"\xff"
    for given in ({"files": {"f": content}}, {"stdin": content}):
        assert "a GitHub token" in str(refused(tmp_path, **given))


def file_frame(name: str, content: bytes) -> bytes:
    return encode("file", base64.b64encode(zlib.compress(content)), name)


def test_a_secret_is_found_in_every_output_file(tmp_path: Path) -> None:
    many = b"".join(file_frame(f"{number}.txt", b"x") for number in range(120))
    frames = many + file_frame("last.txt", TOKEN.encode())
    assert "a GitHub token, at last.txt" in str(refused(tmp_path, printed=frames, max_files=200))
    large = file_frame("large", b"x" * (5 << 20) + b"\n" + TOKEN.encode())
    assert "a GitHub token, at large" in str(
        refused(tmp_path, printed=large, max_file_bytes=6 << 20, max_output_bytes=1000)
    )


def test_a_secret_is_found_everywhere_in_a_log() -> None:
    half, rest = TOKEN[:9], TOKEN[9:]
    long = START + out("x\n" * (1 << 20)) + out(half) + out(rest)
    made = START + out(half) + out(rest) + file_frame("stdout", b"a file that is called so")
    packed = base64.b64encode(zlib.compress(b"x\n" * (2 << 20) + half.encode()))
    compressed = START + encode("out", packed, {"encoding": "zlib"}) + out(rest)
    bare = b"no frames\n" * 10_000 + TOKEN.encode()
    for log, where in ((long, "stdout"), (compressed, "stdout"), (made, "stdout"), (bare, "the log")):
        found = find_secret_in_log(log)
        assert found is not None
        assert found.path == where


@pytest.mark.parametrize("place", ["notes", "scenario"])
def test_a_secret_in_the_header_is_refused(tmp_path: Path, place: str) -> None:
    async def main(sandbox: AsyncSandbox) -> None:
        await sandbox.run("x")

    with pytest.raises(CassetteError, match=f"not written: its header contains a GitHub token, at {place}"):
        record(tmp_path / "c.yaml", main, **{place: f"see {TOKEN}"})


def test_a_log_that_is_not_a_stream_is_searched(tmp_path: Path) -> None:
    async def main(sandbox: AsyncSandbox) -> None:
        await sandbox.run("x")

    record(tmp_path / "c.yaml", main)
    cassette = load(tmp_path / "c.yaml")
    *steps, last = cassette.steps
    log = START + file_frame("made", TOKEN.encode())
    whole = replace(last, response=replace(last.response, json=None, data=log))
    with pytest.raises(CassetteError, match="a GitHub token, at made"):
        write(replace(cassette, steps=(*steps, whole)))


TEMPLATES = [
    "f'http://{u}:{p}@host/'",
    "'http://{}:{}@host/'.format(u, p)",
    "'http://%s:%s@host/' % (u, p)",
    "'http://%(user)s:%(password)s@host/'",
    "http://<user>:<password>@host/",
    "http://$USER:$PASSWORD@host/",
    "http://${USER}:${PASSWORD}@host/",
]


@pytest.mark.parametrize("code", TEMPLATES)
def test_a_template_of_an_address_is_not_a_secret(tmp_path: Path, code: str) -> None:
    async def main(sandbox: AsyncSandbox) -> str:
        return (await sandbox.run(code)).stdout

    record(tmp_path / "c.yaml", main)
    assert replay(tmp_path / "c.yaml", main) == f"ran {code}"


@pytest.mark.parametrize(
    "address",
    [
        "http://{user}:hunter2@host",
        "http://me:p%40ss@host",
        "http://me:pa$$word@host",
        "redis://:hunter2@host",
        "postgresql+psycopg://me:hunter2@h",
    ],
)
def test_a_password_in_an_address_is_a_secret(address: str) -> None:
    found = find_secret({"code": address})
    assert found is not None
    assert found.what == "a password in an address"


def test_long_texts_without_spaces_are_searched_quickly() -> None:
    assert find_secret("a-" * 200_000) is None
    assert find_secret("://" * 300_000) is None


# -- environment variables ------------------------------------------------------------------------------------

VARIABLES = """
    PASSWORD DB_PASSWORD PGPASSWORD MYSQL_PWD SMTP_PASS KEY_PASSPHRASE TOKEN GITHUB_TOKEN HF_TOKEN_2 SECRET
    CLIENT_SECRET SECRET_KEY OPENAI_API_KEY APIKEY API_KEYS PRIVATE_KEY AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID
    GCP_CREDENTIALS CREDENTIAL VAULT_SECRET_ID db_password dbPassword api.key my-token GITHUB_PAT PASS
    STRIPE_KEY OPENAI_KEY ENCRYPT_KEY SESSION_JWT MAX_API_KEY SIZE_PASSWORD LIMIT_ACCOUNT_PASSWORD REFRESH_TOKENS
"""
OTHERS = """
    PATH HOME PWD OLDPWD USER USERNAME TOKENIZERS_PARALLELISM SECRETS_MANAGER_REGION
    AWS_WEB_IDENTITY_TOKEN_FILE GOOGLE_APPLICATION_CREDENTIALS TOKEN_URL SECRET_NAME CACHE_KEY
    PUBLIC_KEY KEYBOARD COMPASS TOKEN_PATH
"""
COUNTS = """
    MAX_TOKENS LLM_MAX_OUTPUT_TOKENS TOKEN_LIMIT PASSWORD_MIN_LENGTH OUTPUT_TOKENS CONTEXT_TOKENS TOKENS_PER_MINUTE
    TOKEN_TTL
"""
PLACEHOLDERS = [
    "",
    " ",
    "dummy",
    "dummy-2",
    "your-api-key-here",
    "not_a_real_token",
    "changeme",
    "example",
    "<password>",
    "${DB_PASSWORD}",
    "$$(DB_PASSWORD)",
    "{{ db.password }}",
    "xxxx-xxxx",
    "***",
    "true",
    "None",
]


def variable(name: str, value: str) -> Any:
    return {"spec": {"env": [{"name": "A", "value": "b"}, {"name": name, "value": value}]}}


@pytest.mark.parametrize("name", VARIABLES.split())
def test_a_variable_with_the_name_of_a_secret_is_a_secret(name: str) -> None:
    found = find_secret(variable(name, "hunter2hunter2"))
    assert found is not None
    assert (found.path, found.what) == ("spec.env[1]", f"the value of the variable {name}")


@pytest.mark.parametrize("name", OTHERS.split())
def test_a_variable_that_is_only_named_similarly_is_not_a_secret(name: str) -> None:
    assert find_secret(variable(name, "/run/there")) is None


@pytest.mark.parametrize("name", COUNTS.split())
@pytest.mark.parametrize("value", ["8000", "90s", "0.5"])
def test_a_count_is_not_a_secret(name: str, value: str) -> None:
    assert find_secret(variable(name, value)) is None


@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_a_placeholder_in_a_variable_is_not_a_secret(value: str) -> None:
    assert find_secret(variable("DB_PASSWORD", value)) is None


@pytest.mark.parametrize("value", ["hunter2", "correct-horse", "dummyhunter2", "x1y", "$ecret", "12345678", "t"])
def test_a_value_that_is_not_a_placeholder_is_a_secret(value: str) -> None:
    assert find_secret(variable("DB_PASSWORD", value)) is not None


def test_a_variable_from_a_config_map_is_not_a_secret() -> None:
    source = {"configMapKeyRef": {"name": "c", "key": "password"}}
    assert find_secret({"env": [{"name": "DB_PASSWORD", "valueFrom": source}]}) is None


def test_a_secret_variable_is_refused_with_a_hint_how_to_record_without_it(tmp_path: Path) -> None:
    error = refused(tmp_path, env={"DB_PASSWORD": "hunter2hunter2"})
    assert "c.yaml is not written: step create-jobs-1 (POST " in str(error)
    assert "contains the value of the variable DB_PASSWORD" in str(error)
    assert "hunter2" not in str(error)
    assert error.hint == "Record it, and replay it, with a value that is not a secret: DB_PASSWORD=dummy."

    async def main(sandbox: AsyncSandbox) -> str:
        return (await sandbox.run("x", env={"DB_PASSWORD": "dummy", "MAX_TOKENS": "4096"})).stdout

    record(tmp_path / "c.yaml", main)
    assert replay(tmp_path / "c.yaml", main) == "ran x"

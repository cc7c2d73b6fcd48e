"""How a program is split, encoded, measured and restored."""

from __future__ import annotations

import base64
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._output_limits import MAX_LOG_BYTES
from gke_sandbox._wire.payload import Content, Payload, env_variable, resolve_delivery, runner_text
from gke_sandbox._wire.program import Program
from gke_sandbox.errors import PayloadTooLarge, SpecError
from gke_sandbox.kube import names
from gke_sandbox.settings import Settings
from tests.kubernetes_rules import is_config_map_key

ENV_BYTES = 900_000
MIB = 1 << 20


def payload(code: str | bytes = "", **program: Any) -> Payload:
    return Payload(Program(code=code, **program), Settings())


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def put_together(content: Content, *, by_env: bool) -> dict[str, Any]:
    """Restore a program by the rules in payload.py, independently of the runner."""
    values: dict[str, bytes] = {key: text.encode() for key, text in content.data.items()}
    values.update(content.binary_data)
    request = json.loads(values["request"])
    used = {"runner", "request"}

    def entry(encoding: str, keys: list[str]) -> bytes:
        assert used.isdisjoint(keys)
        used.update(keys)
        assert encoding in (("text", "base64") if by_env else ("text", "raw", "zlib"))
        whole = b"".join(values[key] for key in keys)
        return {"base64": base64.b64decode, "zlib": zlib.decompress}.get(encoding, bytes)(whole)

    found = {
        "code": entry(*request["code"]),
        "stdin": None if request["stdin"] is None else entry(*request["stdin"]),
        "files": {name: entry(*each) for name, each in request["files"].items()},
        "args": request["args"],
        "timeout": request["timeout"],
        "limits": request["limits"],
        "protocol": request["protocol"],
    }
    assert used == set(values), "a key that is not used"
    return found


programs = st.builds(
    Program,
    code=st.text(max_size=60) | st.binary(max_size=60),
    files=st.dictionaries(
        st.from_regex(r"[a-zé]{1,4}(/[0-9]{1,3})?\.x", fullmatch=True), st.binary(max_size=60), max_size=4
    ),
    args=st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=10), max_size=3),
    stdin=st.none() | st.binary(max_size=60),
)


@given(programs, st.sampled_from(["env", "mount"]))
def test_a_program_can_be_restored_from_its_payload(program: Program, delivery: str) -> None:
    whole = Payload(program, Settings())
    found = put_together(whole.env if delivery == "env" else whole.mount, by_env=delivery == "env")
    assert found["code"] == program.code
    assert found["stdin"] == program.stdin
    assert found["files"] == program.files
    assert found["args"] == list(program.args)


def test_the_request_contains_the_limits() -> None:
    settings = Settings(timeout=2, max_output_bytes=10, max_file_bytes=20, max_files=3)
    request = json.loads(Payload(Program(code="x"), settings).env.data["request"])
    assert request == {
        "protocol": 1,
        "timeout": 2.0,
        "args": [],
        "code": ["text", ["code_0"]],
        "stdin": None,
        "files": {},
        "cpus": 1,
        "keep_home": False,
        "limits": {"output": 10, "files": 3, "file_bytes": 20, "log_bytes": MAX_LOG_BYTES},
    }


@pytest.mark.parametrize(("limit", "cpus"), [("100m", 1), ("1", 1), ("1001m", 2), ("2.5", 3), ("8", 8)])
def test_the_request_contains_the_cpu_limit_rounded_up(limit: str, cpus: int) -> None:
    settings = Settings(cpu_limit=limit, cpu_request="100m")
    assert json.loads(Payload(Program(code="x"), settings).env.data["request"])["cpus"] == cpus


@pytest.mark.parametrize("delivery", ["env", "mount"])
def test_a_home_set_by_the_caller_is_marked_in_the_request(delivery: str) -> None:
    made = Payload(Program(code="x"), Settings(env={"HOME": "/data"}))
    assert json.loads(getattr(made, delivery).data["request"])["keep_home"] is True


def test_a_request_for_stdin_has_the_variables_that_the_pod_lacks() -> None:
    made = Payload(Program(code="x"), Settings(env={"SAME": "1", "CHANGED": "2", "NEW": "3"}))
    request = made.attach_request({"SAME": "1", "CHANGED": "1", "POD": "9"}).split(b"\n", 1)[1]
    assert json.loads(request[:-1])["env"] == {"CHANGED": "2", "NEW": "3"}


def test_keys_are_valid_for_config_maps_and_variables() -> None:
    content = payload("x" * 300_000, files={f"f{i}": noise(100) for i in range(20)}, stdin="x").env
    for key in content.data:
        assert is_config_map_key(key)
        assert names.env_name(env_variable(key)) == []
    assert {"runner", "request", "code_0", "code_2", "stdin_0", "file_0", "file_19"} <= set(content.data)
    assert env_variable("code_0") == "GKE_SANDBOX_CODE_0"


def test_the_runner_is_sent_unchanged() -> None:
    compile(runner_text(), "runner.py", "exec")
    for content in (payload().env, payload().mount):
        assert content.data["runner"] == runner_text()


# -- environment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["x", "é", "€", "🦉"])
@pytest.mark.parametrize("shift", range(4))
def test_variables_are_split_between_characters_and_stay_below_the_limit(character: str, shift: int) -> None:
    code = "x" * shift + character * (300_000 // len(character.encode()))
    content = payload(code).env
    pieces = [text for key, text in content.data.items() if key.startswith("code_")]
    assert "".join(pieces) == code
    assert all(127_996 <= len(piece.encode()) <= 128_000 for piece in pieces[:-1])
    assert len(pieces) == 3


@pytest.mark.parametrize("code", [b"print()\0", b"# \xff", b"\xed\xa0\x80"])
def test_code_that_is_not_valid_text_is_sent_as_base64(code: bytes) -> None:
    content = payload(code).env
    assert json.loads(content.data["request"])["code"][0] == "base64"
    assert put_together(content, by_env=True)["code"] == code


def test_files_of_one_program_are_numbered_consecutively() -> None:
    content = payload(files={"a": noise(200_000), "b": b"b", "empty": b"", "c": b"c"}).env
    files = json.loads(content.data["request"])["files"]
    assert [keys for _, keys in files.values()] == [["file_0", "file_1", "file_2"], ["file_3"], [], ["file_4"]]
    assert put_together(content, by_env=True)["files"]["empty"] == b""


def test_environment_variables_never_refer_to_binary_data() -> None:
    assert payload(b"\xff", files={"a": b"\xff"}, stdin=b"\xff").env.binary_data == {}


def test_it_fits_into_the_environment_up_to_the_total_limit() -> None:
    # The request grows by single bytes: the number of pieces, of digits.
    base = payload("x" * 800_000).env.size
    fits = payload("x" * (800_000 + ENV_BYTES - base))
    assert fits.env.size == ENV_BYTES
    assert fits.env_obstacle is None
    over = payload("x" * (800_001 + ENV_BYTES - base))
    assert over.env_obstacle is not None
    assert isinstance(over.env_obstacle, PayloadTooLarge)
    assert (over.env_obstacle.size, over.env_obstacle.limit) == (ENV_BYTES + 1, ENV_BYTES)


def test_env_counts_against_the_limit_of_the_environment() -> None:
    program = Program(code="x" * 800_000)
    assert Payload(program, Settings()).env_obstacle is None
    assert Payload(program, Settings(env={"A": "x" * 100_000})).env_obstacle is not None


def test_a_program_too_large_for_the_environment_is_not_encoded() -> None:
    whole = payload(files={"a": b"x" * 5_000_000})
    assert whole.env_obstacle is not None
    assert "env" not in vars(whole)


def test_arguments_and_names_travel_in_one_variable() -> None:
    assert payload(args=["x" * 127_000]).env_obstacle is None
    obstacle = payload(args=["x" * 128_000]).env_obstacle
    assert isinstance(obstacle, PayloadTooLarge)
    assert obstacle.limit == 128_000
    names_ = payload(files={"d" * 200 + f"/{i}": b"" for i in range(700)})
    assert names_.env_obstacle is not None


def test_the_number_of_variables_is_bounded() -> None:
    assert payload("x", files={f"f{i}": b"x" for i in range(125)}).env_obstacle is None
    obstacle = payload("x", files={f"f{i}": b"x" for i in range(126)}).env_obstacle
    assert isinstance(obstacle, SpecError)
    assert "128" in str(obstacle)
    assert payload("x", files={f"f{i}": b"" for i in range(1000)}).env_obstacle is None


# -- volume ------------------------------------------------------------------------------------------------


def test_a_plain_mounted_program_has_one_key_per_content() -> None:
    content = payload("print()", files={"a": noise(300_000), "b": b"text"}, stdin=b"in").mount
    assert set(content.data) == {"runner", "request", "code_0"}
    assert set(content.binary_data) == {"file_0", "file_1", "stdin_0"}


@pytest.mark.parametrize("code", [b"print()\0", b"# \xff"])
def test_mounted_code_that_is_not_valid_text_is_binary_data(code: bytes) -> None:
    content = payload(code).mount
    assert content.binary_data == {"code_0": code}


def test_a_mounted_program_is_plain_up_to_one_mebibyte() -> None:
    rest = payload(files={"a": b"x"}).mount.size - 1
    plain = payload(files={"a": noise(MIB - rest)}).mount
    assert plain.size == MIB
    assert json.loads(plain.data["request"])["files"]["a"] == ["raw", ["file_0"]]
    with pytest.raises(PayloadTooLarge):
        _ = payload(files={"a": noise(MIB - rest + 1)}).mount


def test_the_size_counts_utf8_bytes_and_decoded_binary_bytes() -> None:
    assert Content({"a": "é€"}, {"b": b"123"}).size == 5 + 3


def test_a_mounted_program_over_one_mebibyte_is_compressed() -> None:
    text, program = b"some text, over and over\n" * 100_000, "# é\n" * 300_000
    content = payload(program, files={"a": text, "empty": b""}, stdin=text).mount
    assert content.size < MIB
    assert set(content.data) == {"runner", "request"}
    found = put_together(content, by_env=False)
    assert (found["code"], found["stdin"]) == (program.encode(), text)
    assert found["files"] == {"a": text, "empty": b""}


def test_over_one_mebibyte_compressed_is_rejected_with_the_largest_field() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        _ = payload("x", files={"small": noise(1000), "large.bin": noise(2 * MIB)}).mount
    error = caught.value
    assert error.field == "files['large.bin']"
    assert error.limit == MIB
    assert error.size > 2 * MIB
    assert str(error.limit) in str(error)
    assert error.hint


def test_arguments_over_a_mebibyte_are_rejected_with_their_field() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        _ = payload("x", args=["x" * (2 * MIB)]).mount
    assert caught.value.field == "args"


def test_a_program_too_large_to_decompress_is_rejected() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        _ = payload(stdin=b"\0" * (64 * MIB + 1)).mount
    assert (caught.value.field, caught.value.limit) == ("stdin", 64 * MIB)
    assert caught.value.hint == "Put large data into the image."


def test_a_program_too_large_for_a_config_map_has_attach_as_a_hint() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        _ = payload(files={"a": random.Random(1).randbytes(2 * MIB)}).mount
    assert caught.value.hint.endswith("or use delivery=attach (up to 64 MiB).")


# -- delivery -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "slow", "size", "delivery"),
    [
        ({}, False, 10, "env"),
        ({}, True, 10, "mount"),
        ({}, False, 1_000_000, "mount"),
        ({"runtime_class_name": None}, False, 10, "mount"),
        ({"runtime_class_name": "kata"}, False, 10, "mount"),
        ({"runtime_class_name": "gvisor-2"}, False, 10, "mount"),
        ({"delivery": "mount"}, False, 10, "mount"),
        ({"delivery": "env"}, False, 10, "env"),
        ({"delivery": "env"}, True, 10, "env"),
        ({"delivery": "env", "runtime_class_name": None}, True, 10, "env"),
    ],
)
def test_auto_uses_environment_variables_under_gvisor_if_it_fits_and_the_server_is_fast(
    settings: dict[str, Any], slow: bool, size: int, delivery: str
) -> None:
    chosen = Settings(**settings)
    whole = Payload(Program(code="x" * size), chosen)
    assert resolve_delivery(chosen, whole, slow) == delivery


@pytest.mark.parametrize(
    "program",
    [{"files": {"a": b"x" * 1_000_000}}, {"files": {f"{i}": b"x" for i in range(200)}}, {"args": ["x" * 200_000]}],
)
def test_delivery_env_rejects_a_program_that_does_not_fit_with_a_hint(program: dict[str, Any]) -> None:
    settings = Settings(delivery="env")
    with pytest.raises(SpecError) as caught:
        resolve_delivery(settings, Payload(Program(code="", **program), settings), False)
    assert caught.value.field == "delivery"
    assert "auto" in caught.value.hint
    assert "mount" in caught.value.hint

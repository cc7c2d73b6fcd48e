"""Settings: which values are refused before any request, and the field in the error."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gke_sandbox._output_limits import maximum
from gke_sandbox._setting_names import ADK_FIELDS, OPTIONS, SETTING_NAMES, suggest
from gke_sandbox._wire.program import Program
from gke_sandbox.errors import PayloadTooLarge, SandboxError, SpecError
from gke_sandbox.settings import Settings, SettingsDict, Toleration
from tests.invalid_values import junk, refused_field

PYTHON = {name: name for name in SETTING_NAMES}


def refusal(**settings: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        Settings(**settings)
    return caught.value


def test_the_defaults_are_valid() -> None:
    settings = Settings()
    assert (settings.namespace, settings.image, settings.delivery) == ("default", "python:3.11-slim", "auto")
    assert settings.tolerations == (
        Toleration(key="sandbox.gke.io/runtime", operator="Equal", value="gvisor", effect="NoSchedule"),
    )


def test_settings_and_programs_can_be_copied_and_pickled() -> None:
    for value in (Settings(env={"A": "1"}), Program(code="x", files={"a": b"1"})):
        assert copy.deepcopy(value) == value
        assert pickle.loads(pickle.dumps(value)) == value


def test_an_invalid_setting_is_a_value_error_with_the_path_of_the_field() -> None:
    error = refusal(labels={"bad key": "x"})
    assert isinstance(error, ValueError)
    assert isinstance(error, SandboxError)
    assert error.field == "labels['bad key']"
    assert str(error).startswith("labels['bad key']: ")


def test_accepted_admission_changes_are_names_of_fields() -> None:
    assert Settings(accept_admission_changes=["hostPID"]).accept_admission_changes == ("hostPID",)
    error = refusal(accept_admission_changes=["hostPID", "runtimeClass"])
    assert error.field == "accept_admission_changes[1]"
    assert error.hint == "Did you mean runtimeClassName?"
    assert "parallelism" in refusal(accept_admission_changes=["?"]).hint
    assert refusal(accept_admission_changes="hostPID").field == "accept_admission_changes"


# -- resources ---------------------------------------------------------------------------------------------

RESOURCES = [
    "cpu_request",
    "cpu_limit",
    "memory_request",
    "memory_limit",
    "ephemeral_storage_request",
    "ephemeral_storage_limit",
    "tmp_size",
]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("1GB", "Did you mean 1G or 1Gi?"),
        ("1.5 gib", "Did you mean 1.5G or 1.5Gi?"),
        ("64KB", "Did you mean 64k or 64Ki?"),
        ("512mb", "Did you mean 512M or 512Mi?"),
        ("1 fish", "Use a quantity such as 500m, 2, 1.5Gi or 128Mi."),
    ],
)
def test_a_size_in_other_units_is_corrected(value: str, hint: str) -> None:
    assert refusal(memory_limit=value).hint == hint


@pytest.mark.parametrize("field", RESOURCES)
@pytest.mark.parametrize("value", ["abc", "", " 1Gi", "1Gi ", "1gb", "512MB", "1,5Gi", "x" * 5000])
def test_an_invalid_quantity_is_refused(field: str, value: str) -> None:
    error = refusal(**{field: value})
    assert error.field == field
    assert "is not a quantity" in str(error)
    assert len(str(error)) < 500


def test_an_invalid_quantity_is_refused_with_the_message_of_the_server() -> None:
    assert "quantities must match the regular expression" in str(refusal(cpu_limit="abc"))


@pytest.mark.parametrize("field", RESOURCES)
@pytest.mark.parametrize("value", ["0", "0Gi", "-1", "-1Gi", "0.0", "."])
def test_a_resource_of_zero_or_less_is_refused(field: str, value: str) -> None:
    error = refusal(**{field: value})
    assert error.field == field
    assert "more than zero" in str(error)


@pytest.mark.parametrize("field", RESOURCES)
@pytest.mark.parametrize("value", [1, 0.5, True, None, b"1Gi", ["1Gi"]])
def test_a_quantity_that_is_not_text_is_refused(field: str, value: object) -> None:
    error = refusal(**{field: value})
    assert error.field == field
    assert "text" in str(error)


@pytest.mark.parametrize("value", ["1e300", "9e255", "10E", "1e99999999999"])
def test_a_resource_over_64_bits_is_refused(value: str) -> None:
    assert refusal(memory_limit=value).field == "memory_limit"


@pytest.mark.parametrize(
    ("request_field", "request_value", "limit_field", "limit_value"),
    [
        ("cpu_request", "1", "cpu_limit", "999m"),
        ("cpu_request", "1001m", "cpu_limit", "1"),
        ("memory_request", "1Gi", "memory_limit", "1G"),
        ("memory_request", "64Mi", "memory_limit", "1Mi"),
        ("ephemeral_storage_request", "1Gi", "ephemeral_storage_limit", "512Mi"),
    ],
)
def test_a_request_above_its_limit_is_refused_with_both_values(
    request_field: str, request_value: str, limit_field: str, limit_value: str
) -> None:
    error = refusal(**{request_field: request_value, limit_field: limit_value})
    assert error.field == request_field
    for word in (request_value, limit_field, limit_value):
        assert word in str(error)


def test_a_request_can_equal_its_limit() -> None:
    Settings(cpu_request="0.5", cpu_limit="500m", memory_request="1Gi", memory_limit="1024Mi")


def test_cpu_is_compared_in_thousandths_as_in_the_server() -> None:
    Settings(cpu_request="0.0005", cpu_limit="0.0001")


def test_fractions_of_a_byte_are_allowed_where_the_server_only_warns() -> None:
    Settings(memory_limit="0.6Gi")


@pytest.mark.parametrize("value", ["512m", "1", "1023Ki"])
def test_a_memory_limit_below_1_mib_is_refused_with_a_hint(value: str) -> None:
    error = refusal(memory_limit=value, memory_request="1m")
    assert error.field == "memory_limit"
    assert "Mi" in error.hint


def test_the_volume_at_tmp_counts_against_the_storage_limit_unless_there_is_no_volume() -> None:
    error = refusal(tmp_size="193Mi")
    assert error.field == "tmp_size"
    for word in ("193Mi", "64Mi", "256Mi"):
        assert word in str(error)
    Settings(tmp_size="192Mi")
    Settings(tmp_size="193Mi", delivery="env")


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "Default", "a.b", "a_b", "-a", "a" * 64, "é", "a\n"])
def test_an_invalid_namespace_is_refused(value: str) -> None:
    error = refusal(namespace=value)
    assert error.field == "namespace"


@pytest.mark.parametrize("value", ["", " ", "\t\n", "python 3", "python:3.11\n", " python", "a\0b"])
def test_an_empty_or_blank_image_is_refused(value: str) -> None:
    assert refusal(image=value).field == "image"


@pytest.mark.parametrize("field", ["runtime_class_name", "priority_class_name", "service_account_name"])
def test_optional_names_can_be_none_but_not_empty_or_invalid(field: str) -> None:
    Settings(**{field: None})
    Settings(**{field: "a.b-c"})
    for value in ("", "A", "a/b", "a" * 254):
        assert refusal(**{field: value}).field == field
    assert "None" in refusal(**{field: ""}).hint


@pytest.mark.parametrize(
    ("field", "key", "value"),
    [
        ("labels", "a b", "x"),
        ("labels", "", "x"),
        ("labels", "a", "-x"),
        ("labels", "a", "x" * 64),
        ("labels", "a/b/c", "x"),
        ("annotations", "a b", "x"),
        ("annotations", "", "x"),
        ("node_selector", "a b", "x"),
        ("node_selector", "a", "x y"),
        ("env", "", "x"),
        ("env", "1A", "x"),
        ("env", "A=B", "x"),
        ("env", "A B", "x"),
        ("env", "..", "x"),
        ("env", "A\0", "x"),
        ("env", "A", "x\0y"),
        ("env", "A", "\ud800"),
        ("labels", "a", "\ud800"),
        ("annotations", "a", "\ud800"),
    ],
)
def test_an_invalid_key_or_value_is_refused(field: str, key: str, value: str) -> None:
    assert refusal(**{field: {key: value}}).field == f"{field}[{key!r}]"


@pytest.mark.parametrize("field", ["labels", "annotations", "node_selector", "env"])
@pytest.mark.parametrize(
    "value", [5, None, "a=b", [("a", "b")], {"a"}, {"a": 1}, {"a": None}, {"a": b"x"}, {1: "x"}]
)
def test_a_mapping_that_is_not_of_text_to_text_is_refused(field: str, value: object) -> None:
    error = refusal(**{field: value})
    assert error.field.startswith(field)


@pytest.mark.parametrize("name", ["GKE_SANDBOX_", "GKE_SANDBOX_REQUEST", "GKE_SANDBOX_MINE"])
def test_reserved_environment_variables_are_refused(name: str) -> None:
    error = refusal(env={name: "x"})
    assert error.field == f"env[{name!r}]"
    assert "GKE_SANDBOX_" in str(error)


def test_other_environment_variables_are_accepted() -> None:
    env = {"gke_sandbox_x": "1", "PATH": "/bin", "my.var-x": "", "MULTI": "a\nb", "DOLLAR": "$(X)"}
    assert Settings(env=env).env == env


def test_environment_variables_are_limited_in_number_and_size() -> None:
    Settings(env={"A": "x" * 131_069})
    assert refusal(env={"A": "x" * 131_070}).field == "env['A']"
    assert refusal(env={f"A{i}": "x" * 100_000 for i in range(3)}).field == "env"
    Settings(env={f"A{i}": "" for i in range(256)})
    assert refusal(env={f"A{i}": "" for i in range(257)}).field == "env"


@pytest.mark.parametrize(
    "key",
    [
        "app.kubernetes.io/managed-by",
        "gke-sandbox/session",
        "gke-sandbox/other",
        "job-name",
        "controller-uid",
        "batch.kubernetes.io/job-name",
        "batch.kubernetes.io/controller-uid",
    ],
)
def test_labels_that_are_set_for_every_job_are_refused(key: str) -> None:
    assert refusal(labels={key: "x"}).field == f"labels[{key!r}]"


def test_reserved_annotations_are_refused_and_that_of_adk_is_accepted() -> None:
    assert refusal(annotations={"gke-sandbox/x": "1"}).field == "annotations['gke-sandbox/x']"
    Settings(annotations={"adk.agent.google.com/invocation-id": "e-1234", "Upper.Case/Key": "any text\n"})


def test_annotations_are_limited_as_in_the_server() -> None:
    assert refusal(annotations={"a": "x" * (256 << 10)}).field == "annotations"


# -- numbers and choices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["timeout", "startup_timeout"])
@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        -0.0,
        float("nan"),
        float("inf"),
        float("-inf"),
        10**6,
        1e300,
        pytest.param(10**5000, id="huge"),
        True,
        "30",
        b"1",
        None,
        1j,
    ],
)
def test_a_timeout_that_is_not_a_positive_number_of_seconds_is_refused(field: str, value: object) -> None:
    error = refusal(**{field: value})
    assert error.field == field
    assert "seconds" in str(error)
    assert len(str(error)) < 200


def test_a_timeout_can_be_an_integer_or_a_float() -> None:
    settings = Settings(timeout=1, startup_timeout=0.25)
    assert (settings.timeout, settings.startup_timeout) == (1.0, 0.25)
    assert isinstance(settings.timeout, float)


@pytest.mark.parametrize(
    "field",
    [
        "run_as_user",
        "run_as_group",
        "ttl_seconds_after_finished",
        "max_output_bytes",
        "max_file_bytes",
        "max_files",
    ],
)
@pytest.mark.parametrize("value", [-1, 1 << 31, pytest.param(10**5000, id="huge"), True, 1.0, "1", None])
def test_an_integer_outside_its_range_is_refused(field: str, value: object) -> None:
    error = refusal(**{field: value})
    assert error.field == field
    assert len(str(error)) < 200


OUTPUT_LIMITS = {"max_output_bytes": 1 << 20, "max_file_bytes": 4 << 20, "max_files": 100}


@pytest.mark.parametrize("field", OUTPUT_LIMITS)
@pytest.mark.parametrize("delivery", ["auto", "env", "mount"])
def test_a_limit_for_which_the_log_has_no_room_is_refused_with_the_maximum(field: str, delivery: Any) -> None:
    highest = maximum(field, OUTPUT_LIMITS, delivery)
    assert getattr(Settings(delivery=delivery, **{field: highest}), field) == highest
    error = refusal(delivery=delivery, **{field: highest + 1})
    assert error.field == field
    assert f"must be at most {highest} with " in error.problem
    assert all(f"{name} {value}" in error.problem for name, value in OUTPUT_LIMITS.items() if name != field)
    others = " or ".join(name for name in OUTPUT_LIMITS if name != field)
    assert error.hint == f"The pod's log must have room for all output. Lower {others}, or use delivery=attach."


@pytest.mark.parametrize("field", OUTPUT_LIMITS)
def test_a_limit_that_no_other_limit_makes_possible_is_refused_with_the_absolute_maximum(field: str) -> None:
    nothing = dict.fromkeys(OUTPUT_LIMITS, 0)
    highest = maximum(field, nothing, "auto")
    assert getattr(Settings(**{**nothing, field: highest}), field) == highest
    error = refusal(**{**nothing, field: highest + 1})
    assert f"must be between 0 and {highest}, got" in error.problem
    higher = maximum(field, nothing, "attach")
    assert error.hint == (f"With delivery=attach, the maximum is {higher}." if higher > highest else "")
    assert refusal(**{**nothing, field: higher + 1}).hint == ""
    assert refusal(**{**nothing, field: True}).hint == ""


def test_the_limit_that_is_above_its_default_is_named() -> None:
    assert refusal(max_output_bytes=10, max_file_bytes=6 << 20, max_files=10_000).field == "max_file_bytes"
    assert refusal(max_file_bytes=4 << 20, max_files=10_000).field == "max_files"


@pytest.mark.parametrize("field", OUTPUT_LIMITS)
def test_the_documented_maxima_of_the_output_are_those_that_are_checked(field: str) -> None:
    source = inspect.getsource(Settings)
    documented = source.partition(f"    {field}: int")[2].partition("maximum:")[2].partition(";")[0]
    nothing = dict.fromkeys(OUTPUT_LIMITS, 0)
    numbers = [maximum(field, others, "auto") for others in (OUTPUT_LIMITS, nothing)]
    assert [int(number) for number in re.findall("[0-9]+", documented)] == numbers


@pytest.mark.parametrize("field", ["run_as_user", "run_as_group"])
def test_root_is_refused(field: str) -> None:
    assert refusal(**{field: 0}).field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delivery", "environment"),
        ("delivery", "ENV"),
        ("delivery", None),
        ("delivery", ["env"]),
        ("image_pull_policy", "always"),
        ("image_pull_policy", ""),
    ],
)
def test_an_unknown_choice_is_refused_with_the_valid_ones(field: str, value: object) -> None:
    error = refusal(**{field: value})
    assert error.field == field
    assert "one of" in str(error)


# -- lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toleration", "path"),
    [
        ("gvisor", ""),
        (5, ""),
        ({"key": "a", "operater": "Exists"}, ""),
        ({"key": "a b"}, ".key"),
        ({"key": 5}, ".key"),
        ({"key": "a", "operator": "In"}, ".operator"),
        ({"key": "a", "operator": "Exists", "value": "x"}, ".value"),
        ({"key": "a", "value": "x y"}, ".value"),
        ({"key": "a", "effect": "Never"}, ".effect"),
        ({"operator": "Equal", "value": "x"}, ".operator"),
        ({}, ".operator"),
        ({"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}, ".effect"),
        ({"key": "a", "effect": "NoExecute", "tolerationSeconds": "5"}, ".tolerationSeconds"),
        (Toleration(key="a", operator="Exists", value="x"), ".value"),
    ],
)
def test_an_invalid_toleration_is_refused(toleration: Any, path: str) -> None:
    good = {"key": "a", "operator": "Exists"}
    assert refusal(tolerations=[good, toleration]).field == f"tolerations[1]{path}"


def test_tolerations_are_kubernetes_mappings_or_toleration_objects() -> None:
    given_ = [
        {"key": "a", "operator": "Equal", "value": "", "effect": "NoExecute", "tolerationSeconds": 30},
        Toleration(operator="Exists"),
        {"key": "sandbox.gke.io/runtime", "value": "gvisor"},
    ]
    first, second, third = Settings(tolerations=given_).tolerations
    assert first == Toleration(key="a", operator="Equal", value="", effect="NoExecute", toleration_seconds=30)
    assert second is given_[1]
    assert third == Toleration(key="sandbox.gke.io/runtime", value="gvisor")
    assert Settings(tolerations=[]).tolerations == ()


@pytest.mark.parametrize("field", ["tolerations", "image_pull_secrets"])
@pytest.mark.parametrize("value", ["name", b"name", None, {"a": "b"}, 5, {"x"}])
def test_a_value_that_is_not_a_list_is_refused_for_a_list(field: str, value: object) -> None:
    error = refusal(**{field: value})
    assert error.field == field
    assert "list" in str(error)


def test_an_invalid_pull_secret_is_refused() -> None:
    assert refusal(image_pull_secrets=["good", "Bad"]).field == "image_pull_secrets[1]"
    assert Settings(image_pull_secrets=["a"]).image_pull_secrets == ("a",)


# -- override ----------------------------------------------------------------------------------------------


def test_override_returns_a_checked_copy() -> None:
    settings = Settings()
    changed = settings.override(timeout=5, cpu_limit="2")
    assert (changed.timeout, changed.cpu_limit) == (5.0, "2")
    assert settings.timeout == 300.0
    with pytest.raises(SpecError, match="cpu_limit"):
        settings.override(cpu_limit="abc")


@pytest.mark.parametrize(
    ("resource", "default", "small", "large"),
    [
        ("cpu", "200m", "100m", "2"),
        ("memory", "256Mi", "128Mi", "1Gi"),
        ("ephemeral_storage", "64Mi", "32Mi", "1Gi"),
    ],
)
def test_a_request_defaults_to_the_smaller_of_its_default_and_the_limit(
    resource: str, default: str, small: str, large: str
) -> None:
    def request(settings: Settings) -> str:
        return str(getattr(settings, f"{resource}_request"))

    limit: Any = f"{resource}_limit"
    common: Any = {limit: small, "tmp_size": "1Mi", "delivery": "env"}
    lowered = Settings(**common)
    assert request(lowered) == small
    assert request(lowered.override(**{limit: large})) == default
    assert request(pickle.loads(pickle.dumps(lowered)).override(**{limit: large})) == default
    assert lowered == Settings(**common, **{f"{resource}_request": small})


def test_a_request_that_was_set_does_not_follow_the_limit() -> None:
    settings = Settings(cpu_request="200m")
    with pytest.raises(SpecError, match="cpu_request: '200m' is above cpu_limit, '100m'"):
        settings.override(cpu_limit="100m")


def test_an_invalid_limit_is_refused_and_not_the_request_that_follows_it() -> None:
    for value in ("abc", "0", "-1", 5, None):
        assert refusal(cpu_limit=value).field == "cpu_limit"


@pytest.mark.parametrize(
    ("name", "near"), [("time_out", "timeout"), ("cpu", "cpu_limit"), ("mem_limit", "memory_limit")]
)
def test_an_unknown_setting_is_refused_with_the_setting_that_was_probably_meant(name: str, near: str) -> None:
    with pytest.raises(SpecError) as caught:
        Settings().override(**{name: 1})
    assert caught.value.field == name
    assert near in caught.value.hint


def test_settings_copy_mappings_and_lists() -> None:
    env, secrets = {"A": "1"}, ["a"]
    settings = Settings(env=env, image_pull_secrets=secrets)
    env["GKE_SANDBOX_X"] = "1"
    secrets.append("B")
    assert settings.env == {"A": "1"}
    assert settings.image_pull_secrets == ("a",)


def test_a_representation_contains_no_variables_and_no_file_contents() -> None:
    assert "hunter2" not in repr(Settings(env={"PASSWORD": "hunter2"}))
    assert "hunter2" not in repr(Program(code="hunter2", files={"a": "hunter2"}, stdin="hunter2"))


FIELDS = sorted(Settings.__dataclass_fields__)


@given(st.sampled_from(FIELDS), junk)
def test_any_value_is_accepted_or_refused_with_its_field(field: str, value: object) -> None:
    refused = refused_field(Settings().override, **{field: value})
    assert refused is None or refused.startswith((field, field.replace("limit", "request"), "tmp_size"))


def test_messages_do_not_contain_large_values() -> None:
    assert len(str(refusal(image=b"x" * 10_000_000))) < 500
    assert len(str(refusal(labels={"a": "x" * 10_000_000}))) < 1000


# -- names elsewhere ---------------------------------------------------------------------------------------


def test_every_setting_has_its_names_and_its_type_as_a_keyword_argument() -> None:
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert list(SETTING_NAMES) == fields
    types = get_type_hints(Settings)
    assert get_type_hints(SettingsDict) == {name: types[name] for name in fields}


@pytest.mark.parametrize(
    ("wrong", "names", "right"),
    [
        ("mem_limit", PYTHON, "memory_limit"),
        ("memory", PYTHON, "memory_limit"),
        ("timeout_seconds", PYTHON, "timeout"),
        ("max_output", PYTHON, "max_output_bytes"),
        ("cpu_requested", PYTHON, "cpu_request"),
        ("namespase", PYTHON, "namespace"),
        ("bogus", PYTHON, None),
        ("memory_limit", ADK_FIELDS, "mem_limit"),
        ("--memory", ADK_FIELDS, "mem_limit"),
        ("timeout", ADK_FIELDS, "timeout_seconds"),
        ("cpu_request", ADK_FIELDS, "cpu_requested"),
        ("--mem-limit", OPTIONS, "--memory"),
        ("--memory-limit", OPTIONS, "--memory"),
        ("--timeout-seconds", OPTIONS, "--timeout"),
        ("--max-output-bytes", OPTIONS, "--max-output"),
        ("--labels", OPTIONS, "--label"),
        ("--cpu-limt", OPTIONS, "--cpu"),
    ],
)
def test_the_suggestion_for_a_wrong_name_is_a_name_of_the_same_interface(
    wrong: str, names: dict[str, str], right: str | None
) -> None:
    assert suggest(wrong, names) == right


def test_an_error_is_renamed_without_changes_to_its_values() -> None:
    error = refusal(tmp_size="200Mi", annotations={"tmp_size": "cpu_limit"}).renamed(OPTIONS)
    assert error.field == "--tmp-size"
    assert error.message == f"--tmp-size: {error.problem}"
    assert "--ephemeral-storage-request, '64Mi'" in error.problem
    assert error.hint == "Raise --ephemeral-storage or lower --tmp-size."
    entry = refusal(env={"cpu_limit=": "x"}).renamed(OPTIONS)
    assert entry.field == "--env['cpu_limit=']"
    assert "'cpu_limit='" in entry.problem


def test_a_renamed_error_keeps_its_class_and_its_numbers() -> None:
    error = PayloadTooLarge("delivery", "too large", size=2, limit=1, hint="Set delivery.", mentions=("delivery",))
    renamed = error.renamed(OPTIONS, "--delivery (default)")
    assert isinstance(renamed, PayloadTooLarge)
    assert (renamed.size, renamed.limit, renamed.hint) == (2, 1, "Set --delivery.")
    assert renamed.message == "--delivery (default): too large"
    assert str(error) == "delivery: too large"

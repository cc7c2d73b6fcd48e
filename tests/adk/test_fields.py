"""The fields of the executor: valid and invalid values."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from pydantic import AliasChoices, AliasPath, Field, ValidationError

from gke_sandbox import Cluster
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.unsupported import HOOKS
from gke_sandbox.errors import SpecError
from tests.adk.kit import QUIET, execute, exit_code, on, scripted
from tests.pods import out, program

pytestmark = QUIET


def refusal(**given: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        GkeCodeExecutor(**given)
    return caught.value


def test_it_is_a_subclass_of_adks_base_executor() -> None:
    assert issubclass(GkeCodeExecutor, BaseCodeExecutor)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"startup_timeout_seconds": 0}, "startup_timeout_seconds"),
        ({"namespace": "Not A Name"}, "namespace"),
        ({"image": ""}, "image"),
        ({"cpu_limit": "fast"}, "cpu_limit"),
        ({"mem_limit": "512m"}, "mem_limit"),
        ({"mem_requested": "1Gi"}, "mem_requested"),
        ({"cpu_requested": "1", "cpu_limit": "500m"}, "cpu_requested"),
        ({"cpu_limit": "0"}, "cpu_limit"),
        ({"mem_limit": "0"}, "mem_limit"),
        ({"cpu_limit": "-1"}, "cpu_limit"),
        ({"labels": {"a b": "c"}}, "labels['a b']"),
        ({"node_selector": {"a": "b c"}}, "node_selector['a']"),
        ({"max_output_bytes": -1}, "max_output_bytes"),
        ({"max_file_bytes": -1}, "max_file_bytes"),
        ({"service_account_name": "a_b"}, "service_account_name"),
        ({"runtime_class_name": ""}, "runtime_class_name"),
        ({"stateful": True}, "stateful"),
        ({"executor_type": "sandbox"}, "executor_type"),
        ({"cluster": Cluster()}, "cluster"),
        ({"cluster": Cluster.local(), "kubeconfig_path": "x"}, "cluster"),
        ({"cluster": Cluster.local(), "kubeconfig_context": "x"}, "cluster"),
        ({"settings": {"timeout": 3}}, "settings['timeout']"),
        ({"settings": {"max_file": 3}}, "settings['max_file']"),
        ({"settings": {"env": {"A=B": "x"}}}, "settings['env']['A=B']"),
        ({"settings": {"annotations": 5}}, "settings['annotations']"),
        ({"timout": 3}, "timout"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_an_invalid_field_is_refused_by_its_name_when_the_executor_is_created(given: Any, field: str) -> None:
    assert refusal(**given).field == field


@pytest.mark.parametrize(
    "given", [{"timeout_seconds": None}, {"timeout_seconds": 1.5}, {"cluster": "x"}, {"executor_type": "pod"}]
)
def test_a_wrong_type_is_a_validation_error_of_pydantic(given: Any) -> None:
    with pytest.raises(ValidationError):
        GkeCodeExecutor(**given)


def test_an_unknown_field_is_refused_with_the_field_that_was_probably_meant() -> None:
    assert refusal(timout=3).hint == "Did you mean timeout_seconds?"
    assert refusal(memory_limit="1Gi").hint == "Did you mean mem_limit?"
    assert refusal(env={"A": "1"}).hint == "Did you mean settings={'env': ...}?"
    assert refusal(settings={"memory": "1Gi"}).hint == "Did you mean mem_limit?"
    assert "namespace" in refusal(bogus=3).hint


def test_messages_use_the_names_of_the_fields() -> None:
    error = refusal(mem_requested="1Gi", mem_limit="512Mi")
    assert error.message == "mem_requested: '1Gi' is above mem_limit, '512Mi'"
    assert error.hint == "Set mem_requested and mem_limit together."


def test_unsupported_values_are_refused_with_the_reason() -> None:
    assert "not supported yet" in str(refusal(executor_type="sandbox"))
    assert "each execution has a new pod" in str(refusal(stateful=True))
    assert refusal(stateful=True).hint == "Let the code print the values that the next piece of code needs."


def test_creating_an_executor_reads_no_file_and_starts_no_thread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = threading.active_count()
    executor = GkeCodeExecutor(str(tmp_path / "there is no such file"))
    assert threading.active_count() == before
    result = execute(executor, "print(1)")
    assert "there is no such file" in caplog.text
    assert exit_code(result) is None
    executor.close()


def test_a_field_that_is_set_later_is_checked_and_used() -> None:
    cluster = scripted(program())
    with on(cluster) as executor:
        executor.image = "python:3.12-slim"
        executor.timeout_seconds = 7
        with pytest.raises(SpecError, match="timeout_seconds"):
            executor.timeout_seconds = 0
        with pytest.raises(ValidationError):
            executor.timeout_seconds = "soon"  # type: ignore[assignment]
        execute(executor, "")
    assert executor.timeout_seconds == 7
    spec = cluster.jobs()[0]["spec"]
    assert spec["activeDeadlineSeconds"] == 300 + 7 + 30
    assert spec["template"]["spec"]["containers"][0]["image"] == "python:3.12-slim"


def test_other_threads_never_see_a_value_that_is_refused() -> None:
    executor = GkeCodeExecutor(image="python:3.12-slim")
    seen = []

    class ReadsExecutor(dict[str, str]):
        """Reads the executor whenever it is read."""

        def items(self) -> Any:
            seen.append(executor.settings)
            return super().items()

    with pytest.raises(SpecError, match="A=B"):
        executor.settings = {"env": ReadsExecutor({"A=B": "x"})}
    assert seen
    assert all(settings == {} for settings in seen)
    assert executor.model_fields_set == {"image"}


@pytest.mark.parametrize("field", ["namespace", "cluster", "kubeconfig_path", "kubeconfig_context"])
def test_the_cluster_and_the_namespace_cannot_be_changed(field: str) -> None:
    executor = GkeCodeExecutor()
    before = getattr(executor, field)
    with pytest.raises(SpecError, match=f"{field}: cannot be changed"):
        setattr(executor, field, "elsewhere")
    assert getattr(executor, field) == before


def test_an_unknown_attribute_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="timeout_second"):
        GkeCodeExecutor().timeout_second = 3  # type: ignore[attr-defined]


def resources(**fields: Any) -> dict[str, Any]:
    cluster = scripted(program())
    with on(cluster, **fields) as executor:
        execute(executor, "")
    found: dict[str, Any] = cluster.jobs()[0]["spec"]["template"]["spec"]["containers"][0]["resources"]
    return found


def test_a_limit_below_the_default_request_lowers_that_request() -> None:
    found = resources(cpu_limit="100m", mem_limit="128Mi")
    assert (found["requests"]["cpu"], found["requests"]["memory"]) == ("100m", "128Mi")
    assert (found["limits"]["cpu"], found["limits"]["memory"]) == ("100m", "128Mi")
    found = resources(cpu_limit="2", mem_limit="1Gi")
    assert (found["requests"]["cpu"], found["requests"]["memory"]) == ("200m", "256Mi")


def test_a_default_request_follows_its_limit_down_and_up() -> None:
    executor = GkeCodeExecutor(cpu_limit="100m")
    assert executor.cpu_requested == "100m"
    assert executor.model_fields_set == {"cpu_limit"}
    executor.cpu_limit = "150m"
    assert executor.cpu_requested == "150m"
    executor.cpu_limit = "1"
    assert executor.cpu_requested == "200m"
    assert executor.model_copy(update={"mem_limit": "64Mi"}).mem_requested == "64Mi"


def test_an_executor_can_be_created_from_the_values_of_another() -> None:
    executor = GkeCodeExecutor(cpu_limit="100m", mem_limit="64Mi")
    for values in (dict(executor), executor.model_dump()):
        assert GkeCodeExecutor(**values) == executor
        assert GkeCodeExecutor.model_validate(values) == executor


@pytest.mark.parametrize("field", ["cpu_limit", "labels", "settings"])
def test_an_invalid_field_of_a_copy_is_reported_at_the_next_execution(field: str) -> None:
    with on(scripted(program())).model_copy(update={field: 5}) as executor:
        assert f"The program was not run: {field}: must be " in execute(executor, "").stderr


def test_an_invalid_kubeconfig_path_is_named_as_the_field_of_the_executor() -> None:
    assert refusal(kubeconfig_path="a\0b").field == "kubeconfig_path"
    executor = GkeCodeExecutor().model_copy(update={"kubeconfig_path": "a\0b"})
    assert "kubeconfig_path: must be the path of a kubeconfig file" in execute(executor, "").stderr


def test_a_request_that_was_set_is_not_lowered() -> None:
    assert refusal(cpu_requested="200m", cpu_limit="100m").field == "cpu_requested"


def test_a_subclass_can_have_other_defaults() -> None:
    class Small(GkeCodeExecutor):
        """A subclass with other defaults and an additional field."""

        cpu_requested: str = "50m"
        kubeconfig_context: str | None = "small"
        team: str = "data"

    assert Small().cpu_requested == "50m"
    assert Small().kubeconfig_context == "small"
    assert Small(None, "large", team="web").kubeconfig_context == "large"
    with pytest.raises(SpecError, match="cpu_requested"):
        Small(cpu_limit="20m")


def test_a_field_of_a_subclass_can_have_aliases() -> None:
    class Aliased(GkeCodeExecutor):
        team: str = Field("", alias="Team")
        owner: str = Field("", validation_alias="Owner")
        cost: str = Field("", validation_alias=AliasChoices("Cost", AliasPath("costs", 0)))

    made = Aliased(Team="data", Owner="Ada", costs=["low"])
    assert (made.team, made.owner, made.cost) == ("data", "Ada", "low")
    with pytest.raises(SpecError, match="Owners"):
        Aliased(Owners="Ada")


def test_it_has_a_json_schema() -> None:
    properties = GkeCodeExecutor.model_json_schema()["properties"]
    assert set(properties) == set(GkeCodeExecutor.model_fields)
    assert properties["cluster"]["anyOf"] == [{"type": "string"}, {"type": "null"}]


# -- hooks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", [name for name in HOOKS if name not in ("_batch_v1", "_core_v1")])
def test_overriding_a_private_method_of_adks_executor_is_refused_when_the_class_is_created(hook: str) -> None:
    with pytest.raises(SpecError) as caught:
        type("Mine", (GkeCodeExecutor,), {hook: lambda self: None, "__module__": __name__})
    assert caught.value.field.endswith(f"Mine.{hook}")
    assert caught.value.hint == HOOKS[hook]


def test_mixins_and_attributes_that_override_a_private_member_are_refused() -> None:
    class Mixin:
        def _create_job_manifest(self) -> None: ...

    with pytest.raises(SpecError, match=r"Mixin\._create_job_manifest"):
        type("Mine", (Mixin, GkeCodeExecutor), {"__module__": __name__})
    mixin = type("Mixin", (), {"__annotations__": {"_core_v1": Any}, "__module__": __name__})
    with pytest.raises(SpecError, match=r"Mixin\._core_v1"):
        type("Mine", (mixin, GkeCodeExecutor), {"__module__": __name__})
    with pytest.raises(SpecError, match="_batch_v1"):

        class Annotated(GkeCodeExecutor):
            _batch_v1: Any

    with pytest.raises(SpecError, match="_core_v1"):

        class Assigned(GkeCodeExecutor):
            _core_v1 = None


@pytest.mark.parametrize("hook", HOOKS)
def test_assigning_a_private_member_to_an_executor_or_its_class_is_refused(hook: str) -> None:
    class Mine(GkeCodeExecutor):
        """A subclass that is changed below."""

    executor = Mine()
    with pytest.raises(SpecError) as caught:
        setattr(executor, hook, lambda: None)
    assert (caught.value.field, caught.value.hint) == (hook, HOOKS[hook])
    setattr(Mine, hook, lambda self: None)
    with pytest.raises(SpecError, match=hook):
        Mine()


def test_execute_code_can_be_overridden() -> None:
    class Loud(GkeCodeExecutor):
        def execute_code(self, invocation_context: Any, code_execution_input: Any) -> Any:
            result = super().execute_code(invocation_context, code_execution_input)
            result.stdout = result.stdout.upper()
            return result

    with Loud(cluster=Cluster.transport(scripted(program(out("hello"))))) as executor:
        assert execute(executor, "").stdout == "HELLO"

"""The executor: its fields, what it refuses, its copies, its end."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from google.adk.agents import LlmAgent
from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, File
from pydantic import ValidationError

from gke_sandbox import Cluster, Overrides
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.hooks import HOOKS
from gke_sandbox.errors import SpecError
from gke_sandbox.local.faults import Answer, BadImage, Fault, Match
from tests.adk.kit import (
    HAS_EXIT_CODE,
    QUIET,
    Agent,
    Context,
    contents,
    execute,
    exit_code,
    local,
    on,
    scripted,
    seen,
)
from tests.pods import out, program

pytestmark = QUIET


def refusal(**given: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        GkeCodeExecutor(**given)
    return caught.value


# -- fields ----------------------------------------------------------------------------------------------------


def test_it_is_an_executor_of_adk() -> None:
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
        ({"labels": {"a b": "c"}}, "labels['a b']"),
        ({"node_selector": {"a": "b c"}}, "node_selector['a']"),
        ({"max_output_bytes": -1}, "max_output_bytes"),
        ({"max_file_bytes": -1}, "max_file_bytes"),
        ({"service_account_name": "a_b"}, "service_account_name"),
        ({"runtime_class_name": ""}, "runtime_class_name"),
        ({"stateful": True}, "stateful"),
        ({"executor_type": "sandbox"}, "executor_type"),
        ({"cluster": Cluster.local(), "kubeconfig_path": "x"}, "cluster"),
        ({"cluster": Cluster.local(), "kubeconfig_context": "x"}, "cluster"),
        ({"settings": {"timeout": 3}}, "settings['timeout']"),
        ({"settings": {"max_file": 3}}, "settings['max_file']"),
        ({"settings": {"env": {"A=B": "x"}}}, "settings['env']['A=B']"),
        ({"timout": 3}, "timout"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_field_when_the_executor_is_made(given: Any, field: str) -> None:
    assert refusal(**given).field == field


@pytest.mark.parametrize(
    "given", [{"timeout_seconds": None}, {"timeout_seconds": 1.5}, {"cluster": "x"}, {"executor_type": "pod"}]
)
def test_a_wrong_type_is_pydantics_error(given: Any) -> None:
    with pytest.raises(ValidationError):
        GkeCodeExecutor(**given)


def test_an_unknown_field_is_told_with_the_nearest_one() -> None:
    assert refusal(timout=3).hint == "did you mean timeout_seconds?"
    assert "namespace" in refusal(bogus=3).hint


def test_the_reason_is_in_the_words_of_the_fields() -> None:
    error = refusal(mem_requested="1Gi", mem_limit="512Mi")
    assert str(error) == "mem_requested: '1Gi' is above mem_limit, '512Mi'"
    assert error.hint == "set mem_requested and mem_limit together"


def test_what_is_not_there_is_said() -> None:
    assert "not there yet" in str(refusal(executor_type="sandbox"))
    assert "each execution has a pod of its own" in str(refusal(stateful=True))


def test_making_one_reads_nothing_and_opens_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    executor = GkeCodeExecutor(str(tmp_path / "there is no such file"))
    assert threading.active_count() == before
    result = execute(executor, "print(1)")
    assert "there is no such file" in result.stderr
    assert exit_code(result) is None
    executor.close()


def test_a_field_that_is_set_later_is_checked_and_counts() -> None:
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


@pytest.mark.parametrize("field", ["namespace", "cluster", "kubeconfig_path", "kubeconfig_context"])
def test_where_it_runs_cannot_be_set_later(field: str) -> None:
    executor = GkeCodeExecutor()
    before = getattr(executor, field)
    with pytest.raises(SpecError, match=f"{field}: cannot be changed"):
        setattr(executor, field, "elsewhere")
    assert getattr(executor, field) == before


def test_an_attribute_that_is_no_field_cannot_be_set() -> None:
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


def test_a_request_that_was_given_is_not_lowered() -> None:
    assert refusal(cpu_requested="200m", cpu_limit="100m").field == "cpu_requested"


def test_a_subclass_may_have_other_defaults() -> None:
    class Small(GkeCodeExecutor):
        """With a default of its own, and a field."""

        cpu_requested: str = "50m"
        kubeconfig_context: str | None = "small"
        team: str = "data"

    assert Small().cpu_requested == "50m"
    assert Small().kubeconfig_context == "small"
    assert Small(None, "large", team="web").kubeconfig_context == "large"
    with pytest.raises(SpecError, match="cpu_requested"):
        Small(cpu_limit="20m")


# -- hooks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", [name for name in HOOKS if name not in ("_batch_v1", "_core_v1")])
def test_overriding_a_private_method_of_the_original_is_refused_when_the_class_is_made(hook: str) -> None:
    with pytest.raises(SpecError) as caught:
        type("Mine", (GkeCodeExecutor,), {hook: lambda self: None, "__module__": __name__})
    assert caught.value.field.endswith(f"Mine.{hook}")
    assert caught.value.hint == HOOKS[hook]


def test_so_is_a_mixin_that_does_it_and_an_attribute() -> None:
    class Mixin:
        def _create_job_manifest(self) -> None: ...

    with pytest.raises(SpecError, match=r"Mixin\._create_job_manifest"):
        type("Mine", (Mixin, GkeCodeExecutor), {"__module__": __name__})
    with pytest.raises(SpecError, match="_batch_v1"):

        class Annotated(GkeCodeExecutor):
            _batch_v1: Any

    with pytest.raises(SpecError, match="_core_v1"):

        class Assigned(GkeCodeExecutor):
            _core_v1 = None


def test_overriding_execute_code_is_how_it_is_done() -> None:
    class Loud(GkeCodeExecutor):
        def execute_code(self, invocation_context: Any, code_execution_input: Any) -> Any:
            result = super().execute_code(invocation_context, code_execution_input)
            result.stdout = result.stdout.upper()
            return result

    with Loud(cluster=Cluster.transport(scripted(program(out("hello"))))) as executor:
        assert execute(executor, "").stdout == "HELLO"


# -- what a Job is made of -------------------------------------------------------------------------------------


def test_every_field_reaches_the_job() -> None:
    cluster = scripted(program())
    fields: dict[str, Any] = {
        "image": "registry.example/python:3",
        "timeout_seconds": 10,
        "startup_timeout_seconds": 20.0,
        "cpu_requested": "250m",
        "cpu_limit": "750m",
        "mem_requested": "300Mi",
        "mem_limit": "600Mi",
        "node_selector": {"sandbox.gke.io/runtime": "gvisor"},
        "service_account_name": "default",
        "labels": {"team": "data"},
        "settings": {
            "env": {"A": "b"},
            "annotations": {"example.com/why": "test"},
            "ttl_seconds_after_finished": 9,
        },
    }
    with on(cluster, **fields) as executor:
        execute(executor, "", context=Context(Agent("coder"), "e-77"))
    job = cluster.jobs()[0]
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert job["spec"]["activeDeadlineSeconds"] == 10 + 20 + 30
    assert job["spec"]["ttlSecondsAfterFinished"] == 9
    assert job["metadata"]["annotations"] == {
        "adk.agent.google.com/invocation-id": "e-77",
        "example.com/why": "test",
    }
    assert job["metadata"]["labels"]["team"] == "data"
    assert job["metadata"]["labels"]["adk.agent.google.com/agent-name"] == "coder"
    assert pod["nodeSelector"] == {"sandbox.gke.io/runtime": "gvisor"}
    assert pod["serviceAccountName"] == "default"
    assert container["image"] == "registry.example/python:3"
    assert container["resources"]["requests"]["cpu"] == "250m"
    assert container["resources"]["limits"]["memory"] == "600Mi"
    assert {"name": "A", "value": "b"} in container["env"]


def test_without_a_runtime_class_none_is_sent() -> None:
    cluster = scripted(program())
    with on(cluster, runtime_class_name=None) as executor:
        execute(executor, "")
    assert "runtimeClassName" not in cluster.jobs()[0]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", ["_private", "größe", "a" * 64, ""])
def test_an_agents_name_that_can_be_no_label_is_left_out(name: str) -> None:
    cluster = scripted(program(out("fine")))
    with on(cluster) as executor:
        assert execute(executor, "", context=Context(Agent(name))).stdout == "fine"
    labels = cluster.jobs()[0]["metadata"]["labels"]
    assert labels.get("adk.agent.google.com/agent-name", "") == ""


@pytest.mark.parametrize("context", [Context(None), MagicMock(), SimpleNamespace(), None])
def test_a_context_that_says_nothing_of_agent_and_invocation_will_do(context: Any) -> None:
    cluster = scripted(program(out("fine")))
    with on(cluster) as executor:
        result = executor.execute_code(context, CodeExecutionInput(code=""))
    assert (result.stdout, result.stderr) == ("fine", "")
    assert "adk.agent.google.com/agent-name" not in cluster.jobs()[0]["metadata"]["labels"]


def test_one_bad_start_does_not_spoil_the_next() -> None:
    no_list = Fault(Answer(403, "Forbidden", "pods is forbidden"), Match("list", "pods"), times=1)
    no_job = Fault(Answer(403, "Forbidden", "jobs is forbidden"), Match("create", "jobs"), times=1)
    with on(scripted(program(out("fine")), no_list, no_job)) as executor:
        results = [execute(executor, "") for _ in range(3)]
    assert any("forbidden" in result.stderr for result in results)
    assert results[-1].stdout == "fine"


def test_the_log_tells_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gke_sandbox")
    bad_image = Fault(BadImage("not found"), times=None)
    with on(scripted(program(), bad_image)) as executor:
        execute(executor, "")
    with on(scripted(program(code=3))) as executor:
        execute(executor, "")
    warning, info = (record for record in caplog.records if "agent coder" in record.getMessage())
    assert warning.levelname == "WARNING"
    assert "the image does not exist" in warning.getMessage()
    assert "check the image's name" in warning.getMessage()
    assert info.levelname == "INFO"
    assert "exit code 3 (Job gke-sandbox-" in info.getMessage()


def test_an_agent_can_be_copied_with_its_executor() -> None:
    agent = LlmAgent(name="coder", code_executor=local())
    copied = copy.deepcopy(agent)
    assert isinstance(copied.code_executor, GkeCodeExecutor)
    with copied.code_executor as executor:
        assert execute(executor, "print(1)").stdout == "1\n"


def test_input_files_stand_in_the_working_directory_and_new_ones_come_back() -> None:
    code = "text = open('in/a.csv').read()\nopen('b.csv', 'w').write(text.upper())\nprint(len(text))"
    with local() as executor:
        result = execute(executor, code, File("in/a.csv", "eCx5Cg=="), File("raw", b"\xff"))
    assert (result.stdout, result.stderr) == ("4\n", "")
    assert contents(result) == {"b.csv": b"X,Y\n"}
    assert result.output_files[0].mime_type == "text/csv"


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "main.py"])
def test_a_file_that_cannot_stand_there_is_told(name: str) -> None:
    with on(scripted(program())) as executor:
        assert f"{name}'" in execute(executor, "", File(name, b"")).stderr


# -- copies ----------------------------------------------------------------------------------------------------


def copies(executor: GkeCodeExecutor) -> list[GkeCodeExecutor]:
    return [
        copy.copy(executor),
        copy.deepcopy(executor),
        pickle.loads(pickle.dumps(executor)),
        executor.model_copy(),
        executor.model_copy(deep=True),
        GkeCodeExecutor.model_validate(dict(executor)),
    ]


def test_a_copy_works_when_the_original_is_closed_and_the_other_way_round() -> None:
    executor = local(labels={"team": "data"}, cpu_limit="300m")
    assert execute(executor, "print('original')").stdout == "original\n"
    made = copies(executor)
    executor.close()
    for each in made:
        assert dict(each) == dict(executor)
        assert each.model_fields_set == executor.model_fields_set or each is made[-1]
        with each:
            assert execute(each, "print('copy')").stdout == "copy\n"
    assert "closed" in execute(executor, "print(1)").stderr


def test_a_copy_may_be_for_another_namespace() -> None:
    first = local()
    with first, first.model_copy(update={"namespace": "other"}) as second:
        assert execute(first, "print(1)").stdout == "1\n"
        assert execute(second, "print(2)").stdout == "2\n"


def test_a_deep_copy_shares_the_cluster_and_no_mapping() -> None:
    executor = on(scripted(program()), labels={"a": "b"})
    copied = copy.deepcopy(executor)
    assert copied.cluster is executor.cluster
    assert copied.labels is not executor.labels


def test_secrets_are_not_shown() -> None:
    """`adk web` answers with the dump of an agent and its executor."""
    cluster = Cluster.auto(overrides=Overrides(server="https://203.0.113.9", token="hunter2"))
    executor = GkeCodeExecutor(cluster=cluster, settings={"env": {"TOKEN": "hunter2"}})
    agent = LlmAgent(name="coder", code_executor=executor)
    for shown in (executor, agent):
        for text in (repr(shown), str(shown.model_dump()), shown.model_dump_json()):
            assert "hunter2" not in text
    assert "203.0.113.9" in executor.model_dump_json()
    assert executor.settings == {"env": {"TOKEN": "hunter2"}}


# -- the end ---------------------------------------------------------------------------------------------------


def test_close_is_for_good_and_may_come_twice() -> None:
    executor = local()
    executor.close()
    executor.close()
    result = execute(executor, "print(1)")
    assert result.stderr == "The code executor cannot run this: the Sandbox is closed\n"


def test_close_ends_what_runs_and_that_is_told() -> None:
    cluster = seen()
    executor = on(cluster)
    results = []
    thread = threading.Thread(target=lambda: results.append(execute(executor, "import time; time.sleep(600)")))
    thread.start()
    assert cluster.asked.wait(20)
    executor.close()
    thread.join(20)
    assert "closed while the program ran" in results[0].stderr
    assert cluster.jobs_left() == []


def test_threads_share_one_sandbox() -> None:
    cluster = seen()
    results: dict[int, str] = {}
    with on(cluster) as executor:

        def run(number: int) -> None:
            results[number] = execute(executor, f"print({number})").stdout

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {number: f"{number}\n" for number in range(8)}
    assert len({job["metadata"]["labels"]["gke-sandbox/session"] for job in cluster.jobs()}) == 1


def test_exit_code_is_set_where_adk_has_it() -> None:
    with local() as executor:
        result = execute(executor, "raise SystemExit(3)")
    assert hasattr(result, "exit_code") is HAS_EXIT_CODE
    assert exit_code(result) == (3 if HAS_EXIT_CODE else None)

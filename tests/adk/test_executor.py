"""The executor: the Jobs it creates, its copies, and closing it. See test_fields.py for the fields."""

from __future__ import annotations

import base64
import copy
import logging
import pickle
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from google.adk.agents import LlmAgent
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, File

from gke_sandbox import Cluster, ConfigError, ConnectionOverrides
from gke_sandbox._wire.frames import encode
from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.adk.executor import AGENT_LABEL, INVOCATION_ANNOTATION
from gke_sandbox.local.faults import BadImage, Fault, Match, Respond
from tests.adk.kit import (
    HAS_EXIT_CODE,
    QUIET,
    Agent,
    Context,
    contents,
    execute,
    exit_code,
    job_annotations,
    local,
    on,
    scripted,
    seen,
)
from tests.pods import err, out, program

pytestmark = QUIET


# -- the Job -------------------------------------------------------------------------------------


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
    assert job_annotations(job) == {
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


def test_labels_and_annotations_of_the_user_replace_the_default_ones() -> None:
    cluster = scripted(program())
    settings = {"annotations": {INVOCATION_ANNOTATION: "mine"}}
    with on(cluster, labels={AGENT_LABEL: "mine"}, settings=settings) as executor:
        execute(executor, "")
    (job,) = cluster.jobs()
    assert job["metadata"]["labels"][AGENT_LABEL] == "mine"
    assert job_annotations(job) == {INVOCATION_ANNOTATION: "mine"}


def test_show_stderr_controls_whether_stderr_follows_stdout() -> None:
    with on(scripted(program(out("42\n"), err("careful\n")))) as executor:
        assert execute(executor, "").stdout.endswith("careful\n")
        executor.show_stderr = False
        assert execute(executor, "").stdout == "42\n"


@pytest.mark.parametrize("path", [None, ""])
def test_a_context_without_a_path_uses_the_kubeconfig_of_kubectl(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty path counts as not set."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\ncurrent-context: first\n")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    with GkeCodeExecutor(path, "second") as executor:
        execute(executor, "")
    [record] = (record for record in caplog.records if "agent coder" in record.getMessage())
    assert 'context "second"' in record.getMessage()
    assert str(kubeconfig) in record.getMessage()


def test_without_a_runtime_class_the_field_is_not_sent() -> None:
    cluster = scripted(program())
    with on(cluster, runtime_class_name=None) as executor:
        execute(executor, "")
    assert "runtimeClassName" not in cluster.jobs()[0]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", ["_private", "größe", "a" * 64, ""])
def test_an_agent_name_that_is_not_a_valid_label_value_is_left_out(name: str) -> None:
    cluster = scripted(program(out("fine")))
    with on(cluster) as executor:
        assert execute(executor, "", context=Context(Agent(name))).stdout == "fine"
    labels = cluster.jobs()[0]["metadata"]["labels"]
    assert AGENT_LABEL not in labels


@pytest.mark.parametrize("context", [Context(None), MagicMock(), SimpleNamespace(), None])
def test_a_context_without_agent_and_invocation_is_accepted(context: Any) -> None:
    cluster = scripted(program(out("fine")))
    with on(cluster) as executor:
        result = executor.execute_code(context, CodeExecutionInput(code=""))
    assert (result.stdout, result.stderr) == ("fine", "")
    assert AGENT_LABEL not in cluster.jobs()[0]["metadata"]["labels"]


def test_a_start_failure_does_not_affect_the_next_execution() -> None:
    no_list = Fault(Respond(403, "Forbidden", "pods is forbidden"), Match("list", "pods"), times=1)
    no_job = Fault(Respond(403, "Forbidden", "jobs is forbidden"), Match("create", "jobs"), times=1)
    with on(scripted(program(out("fine")), no_list, no_job)) as executor:
        results = [execute(executor, "") for _ in range(3)]
    assert any("its code is not the cause" in result.stderr for result in results)
    assert results[-1].stdout == "fine"


def test_failures_and_dropped_output_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gke_sandbox")
    bad_image = Fault(BadImage("not found"), times=None)
    with on(scripted(program(), bad_image)) as executor:
        execute(executor, "")
    with on(scripted(program(code=3))) as executor:
        execute(executor, "")
    big = encode("file", base64.b64encode(zlib.compress(b"x" * 30)), "big\x1b")
    with on(scripted(program(out("x" * 30), big)), max_output_bytes=10) as executor:
        execute(executor, "")
    warning, info, ok, lost = (record for record in caplog.records if "agent coder" in record.getMessage())
    assert (ok.levelname, "exit code 0" in ok.getMessage()) == ("INFO", True)
    assert warning.levelname == "WARNING"
    assert "the image does not exist" in warning.getMessage()
    assert "Check the image's name" in warning.getMessage()
    assert info.levelname == "INFO"
    assert "(invocation e-1234): exit code 3 (cold start, Job gke-sandbox-" in info.getMessage()
    assert lost.levelname == "WARNING"
    assert "dropped 20 bytes of stdout, 0 of stderr, 1 files; 1 output file with an invalid" in lost.getMessage()
    assert r"): 'big\x1b' (gke-sandbox-" in lost.getMessage()


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "words"),
    [
        ("create", "jobs", "default", "jobs (403 Forbidden). Add this rule to a Role"),
        ("create", "configmaps", "default", "configmaps (403 Forbidden). Add this rule to a Role"),
        ("list", "pods", "default", "pods (403 Forbidden). Add this rule to a Role"),
        ("get", "pods/log", "default", "pods/log (403 Forbidden). Add this rule to a Role"),
        (
            "delete",
            "nodes",
            "missing",
            'namespaces "missing" not found (404 NotFound). Create the namespace (kubectl create namespace',
        ),
    ],
)
def test_the_log_and_not_the_model_gets_an_error_that_only_an_operator_can_fix(
    caplog: pytest.LogCaptureFixture, verb: str, resource: str, namespace: str, words: str
) -> None:
    refused = Respond(403, "Forbidden", f'{resource} is forbidden: User "sam" cannot {verb} {resource}')
    fault = Fault(refused, Match(verb, resource), times=None)
    with on(scripted(program(), fault), namespace=namespace) as executor:
        result = execute(executor, "")
    [sentence] = result.stderr.splitlines()
    assert sentence.endswith("its code is not the cause: only the operator of the sandbox can fix this.")
    [record] = (record for record in caplog.records if "agent coder" in record.getMessage())
    assert record.levelname == "ERROR"
    assert f"(invocation e-1234, namespace {namespace}, cluster " in record.getMessage()
    assert words in record.getMessage()


def test_a_wrong_kubeconfig_is_reported_in_the_log_with_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("current-context: nowhere\n")
    with GkeCodeExecutor(str(path), "staging") as executor:
        result = execute(executor, "")
    assert str(tmp_path) not in result.stderr
    assert "staging" not in result.stderr
    [record] = (record for record in caplog.records if "agent coder" in record.getMessage())
    assert record.levelname == "ERROR"
    assert f"path='{path}', context='staging'" in record.getMessage()
    assert "ConfigError: " in record.getMessage()


def test_an_agent_can_be_copied_with_its_executor() -> None:
    agent = LlmAgent(name="coder", code_executor=local())
    copied = copy.deepcopy(agent)
    assert isinstance(copied.code_executor, GkeCodeExecutor)
    with copied.code_executor as executor:
        assert execute(executor, "print(1)").stdout == "1\n"


def test_input_files_are_in_the_working_directory_and_new_files_are_returned() -> None:
    code = "text = open('in/a.csv').read()\nopen('b.csv', 'w').write(text.upper())\nprint(len(text))"
    with local() as executor:
        result = execute(executor, code, File("in/a.csv", "eCx5Cg=="), File("raw", b"\xff"))
    assert (result.stdout, result.stderr) == ("4\n", "")
    assert contents(result) == {"b.csv": b"X,Y\n"}
    assert result.output_files[0].mime_type == "text/csv"


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "main.py"])
def test_an_input_file_with_an_invalid_name_is_refused(name: str) -> None:
    with on(scripted(program())) as executor:
        assert f"not run: input_files['{name}']: " in execute(executor, "", File(name, b"")).stderr


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


def test_a_copy_and_its_original_are_closed_separately() -> None:
    executor = local(labels={"team": "data"}, cpu_limit="100m")
    assert execute(executor, "print('original')").stdout == "original\n"
    made = copies(executor)
    executor.close()
    for each in made:
        assert each == executor
        assert each.model_fields_set == executor.model_fields_set or each is made[-1]
        with each:
            assert execute(each, "print('copy')").stdout == "copy\n"
    assert "closed" in execute(executor, "print(1)").stderr


def test_a_copy_can_use_another_namespace() -> None:
    first = local()
    with first, first.model_copy(update={"namespace": "other"}) as second:
        assert execute(first, "print(1)").stdout == "1\n"
        assert execute(second, "print(2)").stdout == "2\n"


def test_a_deep_copy_shares_the_cluster_but_not_its_mappings() -> None:
    executor = on(scripted(program()), labels={"a": "b"})
    for copied in (copy.deepcopy(executor), executor.model_copy(update={"image": "x"}, deep=True)):
        assert copied.cluster is executor.cluster
        assert copied.labels is not executor.labels


def test_executors_with_the_same_fields_are_equal() -> None:
    cluster = Cluster.transport(scripted(program()))
    first, second = GkeCodeExecutor(cluster=cluster), GkeCodeExecutor(cluster=cluster)
    with first:
        execute(first, "")
        assert first == second
    second.image = "python:3.12-slim"
    assert first != second


def test_dumps_and_representations_contain_no_secrets() -> None:
    """`adk web` shows the dump of an agent and its executor."""
    cluster = Cluster.auto(overrides=ConnectionOverrides(server="https://203.0.113.9", token="hunter2"))
    executor = GkeCodeExecutor(cluster=cluster, settings={"env": {"TOKEN": "hunter2"}})
    agent = LlmAgent(name="coder", code_executor=executor)
    for shown in (executor, agent):
        for text in (repr(shown), str(shown.model_dump()), shown.model_dump_json()):
            assert "hunter2" not in text
    assert "203.0.113.9" in executor.model_dump_json()
    assert executor.settings == {"env": {"TOKEN": "hunter2"}}


# -- closing ---------------------------------------------------------------------------------------------------


def test_close_can_be_called_twice_and_the_executor_cannot_be_used_afterwards() -> None:
    executor = local()
    executor.close()
    executor.close()
    result = execute(executor, "print(1)")
    assert result.stderr == "The code executor cannot run this: the Sandbox is closed\n"


def test_close_cancels_running_code_and_reports_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="gke_sandbox")
    cluster = seen()
    executor = on(cluster)
    results = []
    thread = threading.Thread(target=lambda: results.append(execute(executor, "import time; time.sleep(600)")))
    thread.start()
    assert cluster.asked.wait(20)
    executor.close()
    thread.join(20)
    assert results[0].stderr.startswith("The program was cancelled: the Sandbox was closed while the program ran")
    assert cluster.jobs_left() == []
    told = [record for record in caplog.records if "agent coder" in record.getMessage()]
    assert [record.levelname for record in told] == ["INFO"]


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


@pytest.mark.parametrize("code", [None, b"print(1)"], ids=["None", "bytes"])
def test_code_that_is_not_text_is_a_result(code: Any) -> None:
    with on(scripted(program())) as executor:
        result = execute(executor, code)
    assert result.stderr == f"The program was not run: code: must be text (str), got {type(code).__name__}\n"


def test_exit_code_is_set_if_adk_has_that_field() -> None:
    with local() as executor:
        result = execute(executor, "raise SystemExit(3)")
    assert hasattr(result, "exit_code") is HAS_EXIT_CODE
    assert exit_code(result) == (3 if HAS_EXIT_CODE else None)


def test_check_sends_the_job_of_the_executor_as_a_dry_run_and_raises_what_is_wrong() -> None:
    cluster = scripted(program())
    with on(cluster, image="agents/python:1", mem_limit="1Gi") as executor:
        executor.check()
        assert [each.query["dryRun"] for each in cluster.requests if each.resource == "jobs"] == ["All"]
        assert not cluster.leftovers()
    with (
        on(scripted(program()), namespace="missing") as executor,
        pytest.raises(ConfigError, match='namespaces "missing" not found'),
    ):
        executor.check()

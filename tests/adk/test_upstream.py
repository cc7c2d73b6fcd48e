"""The test cases of google-adk for its GkeCodeExecutor, with the same inputs and meaning, on a cluster.

Each test is one of these cases; where this executor does something else on purpose, the test says what, and
docs/adk.md says why. Their cases replace the Kubernetes client by mocks, and count calls; here an embedded cluster
answers, and what it was sent is looked at. Those of the sandbox mode have one: it is refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from gke_sandbox.adk import GkeCodeExecutor
from gke_sandbox.errors import SpecError
from gke_sandbox.local.faults import Fault, Match, NoNode, Respond
from gke_sandbox.local.runtimes.base import ContainerExit
from gke_sandbox.local.runtimes.scripted import Script
from tests.adk.kit import (
    HAS_EXIT_CODE,
    QUIET,
    Agent,
    Context,
    execute,
    exit_code,
    job_annotations,
    on,
    scripted,
    seen,
)
from tests.pods import START, err, exit_frame, out, program

pytestmark = QUIET

# The values of the fixture in google-adk, for cases that run code.
THEIRS: dict[str, Any] = {
    "namespace": "default",
    "image": "python:3.11-slim",
    "timeout_seconds": 300,
    "cpu_requested": "200m",
    "mem_requested": "256Mi",
    "cpu_limit": "500m",
    "mem_limit": "512Mi",
}


def values(executor: GkeCodeExecutor) -> dict[str, Any]:
    return {name: getattr(executor, name) for name in (*THEIRS, "kubeconfig_path", "kubeconfig_context")}


def assert_exit_code(result: Any, code: int | None) -> None:
    assert exit_code(result) == (code if HAS_EXIT_CODE else None)


# -- the constructor -------------------------------------------------------------------------------------------


def test_defaults() -> None:
    executor = GkeCodeExecutor()
    assert values(executor) == {**THEIRS, "kubeconfig_path": None, "kubeconfig_context": None}
    assert executor.executor_type == "job"
    assert executor.sandbox_gateway_name is None
    assert executor.sandbox_template == "python-sandbox-template"
    assert (executor.stateful, executor.optimize_data_file, executor.error_retry_attempts) == (False, False, 2)


def test_overrides() -> None:
    given = {
        "namespace": "sandboxed",
        "image": "example.com/python:3.12",
        "timeout_seconds": 60,
        "cpu_limit": "1",
        "mem_limit": "1Gi",
    }
    assert values(GkeCodeExecutor(**given)).items() >= given.items()


def test_positional_path_and_context() -> None:
    executor = GkeCodeExecutor("/path/to/kubeconfig", "a-context")
    assert (executor.kubeconfig_path, executor.kubeconfig_context) == ("/path/to/kubeconfig", "a-context")


def test_a_positional_path_alone() -> None:
    executor = GkeCodeExecutor("/path/to/kubeconfig")
    assert (executor.kubeconfig_path, executor.kubeconfig_context) == ("/path/to/kubeconfig", None)


def test_positional_and_named_arguments_together() -> None:
    executor = GkeCodeExecutor("/path/to/kubeconfig", kubeconfig_context="a-context", namespace="sandboxed")
    assert executor.kubeconfig_path == "/path/to/kubeconfig"
    assert executor.kubeconfig_context == "a-context"
    assert executor.namespace == "sandboxed"


def test_the_sandbox_mode_is_refused_when_the_executor_is_created() -> None:
    """google-adk: ImportError if k8s-agent-sandbox is not installed. Here it is not supported yet."""
    with pytest.raises(SpecError, match="executor_type"):
        GkeCodeExecutor(executor_type="sandbox")


@pytest.mark.parametrize(
    "given", [{"sandbox_template": None}, {"sandbox_warmpool": "a-pool"}, {"sandbox_warmpool": None}]
)
def test_fields_of_the_sandbox_mode_are_accepted_for_jobs(given: dict[str, Any]) -> None:
    """`sandbox_warmpool`, and `sandbox_template=None`, come with a newer release of google-adk."""
    executor = GkeCodeExecutor(**given)
    assert {name: getattr(executor, name) for name in given} == given
    with pytest.raises(SpecError, match="executor_type"):
        GkeCodeExecutor(executor_type="sandbox", **given)


# -- executions ------------------------------------------------------------------------------------------------


def test_a_success_has_stdout_and_exit_code_0_and_needs_one_job_and_one_config_map() -> None:
    """google-adk creates the ConfigMap first and sets its owner with a PATCH. Here the Job is first: no PATCH."""
    cluster = scripted(program(out("hello world")))
    with on(cluster, **THEIRS) as executor:
        result = execute(executor, "print('hello world')")
    assert (result.stdout, result.stderr) == ("hello world", "")
    assert_exit_code(result, 0)
    assert [each["kind"] for each in cluster.posted] == ["Job", "ConfigMap"]
    assert "PATCH" not in {request.method for request in cluster.requests}
    logs = [request for request in cluster.requests if request.resource == "pods/log"]
    assert len(logs) == 1


def test_a_failed_job_has_the_exit_code_and_stderr_of_the_program() -> None:
    """google-adk: `Job failed. Logs:` and both streams as one text."""
    with on(scripted(program(out("printed"), err("a traceback"), code=2)), **THEIRS) as executor:
        result = execute(executor, "raise SystemExit(2)")
    assert result.stderr.startswith("a traceback\n\nThe program ended with exit code 2.")
    assert "printed" in result.stderr
    assert result.stdout == "printed"
    assert_exit_code(result, 2)


def test_a_container_that_never_terminated_is_a_failure() -> None:
    """google-adk: exit code 1 for a failed Job without a terminated container. Here: that of the runner."""
    never = Script(chunks=[(0.0, START), (0.0, err("a traceback")), (0.0, exit_frame(1))], ends_at=None)
    with on(scripted(never), **THEIRS) as executor:
        result = execute(executor, "raise SystemExit(1)")
    assert result.stderr.startswith("a traceback")
    assert_exit_code(result, 1)


def test_an_error_of_the_api_server_is_returned_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    """google-adk: `Kubernetes API error:` and the reason. Here the log has everything, and no objects remain."""
    refused = Respond(403, "Forbidden", "configmaps is forbidden: no permission")
    cluster = scripted(program(), Fault(refused, Match("create", "configmaps"), times=None))
    with on(cluster, **THEIRS) as executor:
        result = execute(executor, "print('hello world')")
    assert result.stderr.startswith("The program was not run, and its code is not the cause:")
    assert "configmaps is forbidden: no permission" in caplog.text
    assert_exit_code(result, None)
    assert cluster.jobs_left() == []


def test_the_time_limit_ends_the_code_and_keeps_its_output() -> None:
    """google-adk: no exit code, and the code continues. Here it is killed, with exit code 124."""
    cluster = seen()
    with on(cluster, **{**THEIRS, "timeout_seconds": 1}) as executor:
        result = execute(executor, "import time\nprint('still running', flush=True)\ntime.sleep(600)")
    assert "killed at its time limit of 1 s" in result.stderr
    assert "still running" in result.stderr
    assert_exit_code(result, 124)
    assert cluster.jobs_left() == []


def test_a_startup_timeout_is_returned_and_not_raised() -> None:
    """Not a case of google-adk, whose executor raises an error that ends the run of the agent."""
    cluster = scripted(program(), Fault(NoNode(), times=None))
    with on(cluster, **THEIRS, startup_timeout_seconds=0.3) as executor:
        result = execute(executor, "print(1)")
    assert "within 0.3 s (startup_timeout_seconds)" in result.stderr
    assert_exit_code(result, None)


def test_the_manifest_of_the_job() -> None:
    """Everything that google-adk asserts, except for names, the command and the volume."""
    cluster = scripted(program())
    with on(cluster, **THEIRS) as executor:
        execute(executor, "print('hello world')", context=Context(Agent("coder"), "test-invocation-123"))
    job = cluster.jobs()[0]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job_annotations(job) == {"adk.agent.google.com/invocation-id": "test-invocation-123"}
    assert spec["backoffLimit"] == 0
    assert spec["ttlSecondsAfterFinished"] == 300, "google-adk sets 600, because it deletes nothing itself"
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert {
        "key": "sandbox.gke.io/runtime",
        "operator": "Equal",
        "value": "gvisor",
        "effect": "NoSchedule",
    } in pod["tolerations"]
    assert len(pod["containers"]) == 1
    assert container["name"] == "code-runner"
    assert container["image"] == "python:3.11-slim"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1001
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert container["resources"]["requests"].items() >= {"cpu": "200m", "memory": "256Mi"}.items()
    assert container["resources"]["limits"].items() >= {"cpu": "500m", "memory": "512Mi"}.items()


def test_the_default_mode_runs_a_job() -> None:
    cluster = scripted(program(out("from a Job")))
    with on(cluster, executor_type="job") as executor:
        result = execute(executor, "print('from a Job')")
    assert result.stdout == "from a Job"
    assert_exit_code(result, 0)
    assert len(cluster.jobs()) == 1


def test_a_pod_that_was_killed_for_its_memory_is_reported() -> None:
    """Not a case of google-adk, which does not read why a container ended."""
    killed = Script(chunks=[(0.0, START), (0.0, out("half"))], ends_at=0.05, exit=ContainerExit(137, "OOMKilled"))
    with on(scripted(killed), **THEIRS) as executor:
        result = execute(executor, "x = 'x' * 10**10")
    assert "killed at its memory limit of 512Mi (mem_limit)" in result.stderr
    assert_exit_code(result, 137)

"""The private methods of google-adk's GkeCodeExecutor, and their replacements in this executor. Pure."""

from __future__ import annotations

import inspect

from ..errors import SpecError

__all__ = ["HOOKS", "check_class", "hook_error"]

_EXECUTE = "Override execute_code, and call super().execute_code in it."
_OUTPUT = "Set max_output_bytes to limit the output; the result of execute_code has stdout, stderr and exit_code."

_PRIVATE = "__private_attributes__"

HOOKS = {
    "_create_job_manifest": "Set the fields image, cpu_requested, cpu_limit, mem_requested, mem_limit, "
    "runtime_class_name, node_selector, service_account_name and labels; set the rest in the field settings "
    "(tolerations, env, image_pull_secrets, priority_class_name, annotations, ...).",
    "_create_code_configmap": "Pass files as input_files of execute_code; set delivery in the field settings.",
    "_add_owner_reference": "Remove the method: the ConfigMap is created with its owner.",
    "_watch_job_completion": "Set the fields timeout_seconds and startup_timeout_seconds.",
    "_get_pod_logs": _OUTPUT,
    "_get_pod_logs_and_exit_code": _OUTPUT,
    "_get_container_exit_code": _OUTPUT,
    "_execute_as_job": _EXECUTE,
    "_execute_in_sandbox": _EXECUTE,
    "_check_sandbox_dependency": "Remove the method: executor_type is checked when the executor is created.",
    "_batch_v1": "Set the field cluster.",
    "_core_v1": "Set the field cluster.",
}
"""A hint for each private method or attribute of google-adk's executor, of every release since 1.14."""


def check_class(cls: type, base: type) -> None:
    """Raise `SpecError` if `cls`, a subclass of `base`, or a mixin of it defines one of `HOOKS`.

    It would never be called, so the error is raised when the class is created.
    """
    for ancestor in cls.__mro__:
        if ancestor in base.__mro__:
            continue
        # Pydantic removes private attributes from the class, and those without a value were never in it.
        defined = {*vars(ancestor), *inspect.get_annotations(ancestor), *vars(ancestor).get(_PRIVATE, ())}
        for name in sorted(defined & HOOKS.keys()):
            raise hook_error(name, of=ancestor)


def hook_error(name: str, *, of: type | None = None) -> SpecError:
    """Return the error for one of `HOOKS` that the class `of` defines, or that is assigned to an executor."""
    where = f"{of.__qualname__}.{name}" if of else name
    return SpecError(
        where,
        "overrides a private member of google-adk's GkeCodeExecutor that this executor does not have",
        hint=HOOKS[name],
    )

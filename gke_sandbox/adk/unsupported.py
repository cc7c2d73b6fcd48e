"""The private methods of google-adk's own GkeCodeExecutor, and what serves here in their place. Pure."""

from __future__ import annotations

import inspect

from ..errors import SpecError

__all__ = ["HOOKS", "refusal", "refuse"]

_EXECUTE = "override execute_code, and call super().execute_code there"
_OUTPUT = "max_output_bytes bounds what is read; the result of execute_code has stdout, stderr and exit_code"

_PRIVATE = "__private_attributes__"

#: Of every release from 1.14 on.
HOOKS = {
    "_create_job_manifest": "set the fields image, cpu_requested, cpu_limit, mem_requested, mem_limit, "
    "runtime_class_name, node_selector, service_account_name and labels, and in the field settings all else "
    "(tolerations, env, image_pull_secrets, priority_class_name, annotations, ...)",
    "_create_code_configmap": "pass files as input_files of execute_code; the field settings has delivery",
    "_add_owner_reference": "nothing needs to: the ConfigMap is made with its owner",
    "_watch_job_completion": "set the fields timeout_seconds and startup_timeout_seconds",
    "_get_pod_logs": _OUTPUT,
    "_get_pod_logs_and_exit_code": _OUTPUT,
    "_get_container_exit_code": _OUTPUT,
    "_execute_as_job": _EXECUTE,
    "_execute_in_sandbox": _EXECUTE,
    "_check_sandbox_dependency": "the field executor_type is checked when the executor is made",
    "_batch_v1": "set the field cluster",
    "_core_v1": "set the field cluster",
}


def refuse(cls: type, base: type) -> None:
    """Raise `SpecError` if `cls`, a subclass of `base`, or a mixin of it defines one of `HOOKS`.

    Nothing would ever call it: better told when the class is made than found out when it does not do its work.
    """
    for ancestor in cls.__mro__:
        if ancestor in base.__mro__:
            continue
        # Pydantic takes private attributes out of the class, and those without a value were never in it.
        defined = {*vars(ancestor), *inspect.get_annotations(ancestor), *vars(ancestor).get(_PRIVATE, ())}
        for name in sorted(defined & HOOKS.keys()):
            raise refusal(name, of=ancestor)


def refusal(name: str, *, of: type | None = None) -> SpecError:
    """The error for one of `HOOKS` that is defined by the class `of`, or assigned to an executor."""
    where = f"{of.__qualname__}.{name}" if of else name
    return SpecError(
        where,
        "overrides a private part of google-adk's GkeCodeExecutor that this executor does not have",
        hint=HOOKS[name],
    )

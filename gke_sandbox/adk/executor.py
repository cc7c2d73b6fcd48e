"""GkeCodeExecutor: an ADK agent's code, each piece in a gVisor pod of its own."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult
from pydantic import ConfigDict, Field, PrivateAttr
from pydantic_core import CoreSchema, core_schema

from .._setting_names import ADK_FIELDS, SETTING_NAMES
from ..cluster import Cluster
from ..errors import SandboxClosed, SandboxError, SpecError
from ..kube import names
from ..settings import capped_request
from . import fields, unsupported
from .files import input_files
from .results import of_error, of_result

if TYPE_CHECKING:
    from google.adk.agents.invocation_context import InvocationContext

    from ..settings import Settings, SettingsDict
    from ..sync import Sandbox

__all__ = ["AGENT_LABEL", "INVOCATION_ANNOTATION", "GkeCodeExecutor"]

logger = logging.getLogger("gke_sandbox")

#: As google-adk's own executor calls it.
INVOCATION_ANNOTATION = "adk.agent.google.com/invocation-id"
#: The agent's name, if it can be the value of a label (at most 63 characters).
AGENT_LABEL = "adk.agent.google.com/agent-name"

#: What an open Sandbox stands on.
_FIXED = ("cluster", "kubeconfig_path", "kubeconfig_context", "namespace")


class _IsCluster:
    """Tells pydantic to take a Cluster as it is, and to dump it as its repr, which has no token in it.

    ``adk web`` shows every agent's dump to whoever may open it.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        as_text = core_schema.plain_serializer_function_ser_schema(repr, when_used="unless-none")
        return core_schema.nullable_schema(core_schema.is_instance_schema(Cluster), serialization=as_text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: object) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, {"type": "null"}]}


class _Opened:
    """The Sandbox of one executor, made at first use. A copy of it, also a pickled one, has none yet.

    It has no lock: a thread that forks may leave one taken. All are equal: an executor is what its fields say.
    """

    def __init__(self) -> None:
        self._made: dict[str, Sandbox] = {}

    def sandbox(self, cluster: Cluster, namespace: str) -> Sandbox:
        """The one for every thread. Nothing is opened yet: the Sandbox does that in its first run."""
        made = self._made.get("sandbox")
        if made is None:
            from ..sync import Sandbox

            # Of two threads that come here at once one wins, and what the other has made was never opened.
            made = self._made.setdefault("sandbox", Sandbox(cluster, namespace=namespace))
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opened)

    def __hash__(self) -> int:
        return hash(_Opened)

    def __deepcopy__(self, memo: object) -> _Opened:
        return _Opened()

    def __reduce__(self) -> tuple[type[_Opened], tuple[()]]:
        return _Opened, ()


class GkeCodeExecutor(BaseCodeExecutor):
    """Runs the code that an agent's model writes, each piece in a fresh gVisor pod that is then deleted.

    Takes the place of ``google.adk.code_executors.GkeCodeExecutor``: the same constructor and fields, the same
    agent. Fields are checked when it is made, with `SpecError` (or pydantic's ``ValidationError`` for a wrong
    type); the cluster is looked for at the first execution. Any number of threads and agents may share one.

    `close` ends the executions in flight and deletes their Jobs. ADK closes no executor: one that is never
    closed leaves nothing in the cluster when the interpreter exits. A copy, deep or pickled or by
    ``model_copy``, has the same fields and connections of its own.

    `execute_code` raises nothing for the model or the operator to read: see there.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, hide_input_in_errors=True)

    # -- google-adk's own ------------------------------------------------------------------------------------

    #: Where the Jobs are made. Fixed once the executor is made, as are `cluster` and the kubeconfig's fields.
    namespace: str = "default"
    image: str = "python:3.11-slim"
    #: The program's own time, from its start to its end, in seconds; more than 0.
    timeout_seconds: int = 300
    #: ``sandbox`` (Agent Sandbox) is not there yet, and refused.
    executor_type: Literal["job", "sandbox"] = "job"
    #: Kubernetes' quantities. A default request is lowered to a limit below it.
    cpu_requested: str = "200m"
    mem_requested: str = "256Mi"
    cpu_limit: str = "500m"
    mem_limit: str = "512Mi"
    #: Where neither is given: in a pod, that pod's cluster; elsewhere the one that kubectl would use.
    kubeconfig_path: str | None = None
    kubeconfig_context: str | None = None
    #: Of ``executor_type="sandbox"``: taken, so that nobody has to delete them, and of no effect for Jobs.
    sandbox_gateway_name: str | None = None
    sandbox_template: str | None = "python-sandbox-template"

    # -- ours ------------------------------------------------------------------------------------------------

    #: Where to run, in the place of a kubeconfig: `Cluster.gke`, `Cluster.local`, `Cluster.replay`, ...
    cluster: Annotated[Cluster | None, _IsCluster] = None
    #: Seconds from the Job's creation until the program starts: a node's making, the image's pull.
    startup_timeout_seconds: float = 300.0
    #: None: not sent, the cluster's default runtime.
    runtime_class_name: str | None = "gvisor"
    node_selector: dict[str, str] = Field(default_factory=dict)
    service_account_name: str | None = None
    #: On Job, pod and ConfigMap.
    labels: dict[str, str] = Field(default_factory=dict)
    #: Of stdout, and of stderr. ADK passes stdout on to the model whole.
    max_output_bytes: int = 1 << 20
    #: Of all output files together.
    max_file_bytes: int = 4 << 20
    #: Whether what a program wrote to stderr follows its stdout, under a heading, when it ended with exit code 0.
    show_stderr: bool = True
    #: Any other of `gke_sandbox.Settings`: ``{"env": {...}, "tolerations": [...], "max_files": 10}``.
    #: Not in dumps: there may be secrets in it.
    settings: dict[str, Any] = Field(default_factory=dict, repr=False, exclude=True)

    _opened: _Opened = PrivateAttr(default_factory=_Opened)

    def __init__(
        self,
        kubeconfig_path: str | None = None,
        kubeconfig_context: str | None = None,
        *,
        settings: SettingsDict | None = None,
        **data: Any,
    ) -> None:
        unsupported.refuse(type(self), BaseCodeExecutor)  # Again: a class can be changed after it was made.
        known = type(self).model_fields
        aliases = fields.aliases(known.values())
        for name in data:
            if name not in known and name not in aliases:
                near = fields.near_field(name, known)
                hint = f"Did you mean {near}?" if near else f"The fields are {', '.join(known)}."
                raise SpecError(name, f"unknown field of {type(self).__name__}", hint=hint)
        # Only what was given: what a subclass has for a default stays.
        if kubeconfig_path is not None:
            data["kubeconfig_path"] = kubeconfig_path
        if kubeconfig_context is not None:
            data["kubeconfig_context"] = kubeconfig_context
        if settings is not None:
            data["settings"] = settings
        super().__init__(**data)
        self._lower()
        self._check()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        unsupported.refuse(cls, GkeCodeExecutor)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in unsupported.HOOKS:
            raise unsupported.refusal(name)
        if name not in type(self).model_fields:
            super().__setattr__(name, value)
            return
        if name in _FIXED:
            raise SpecError(
                name,
                "cannot be changed once the executor is made",
                hint=f"make another: model_copy(update={{{name!r}: ...}})",
            )
        changed = self.model_copy()
        super(GkeCodeExecutor, changed).__setattr__(name, value)
        changed._lower()
        changed._check()
        # All at once: another thread that reads the fields finds no limit without its request.
        object.__setattr__(self, "__pydantic_fields_set__", changed.model_fields_set)
        object.__setattr__(self, "__dict__", changed.__dict__)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> GkeCodeExecutor:
        """As pydantic has it: what is updated is not checked before the next execution."""
        source = copy.deepcopy(self) if deep else self
        copied: GkeCodeExecutor = super(GkeCodeExecutor, source).model_copy(update=update)
        copied._lower()
        return copied

    def __copy__(self) -> GkeCodeExecutor:
        copied: GkeCodeExecutor = super().__copy__()
        copied._opened = _Opened()
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> GkeCodeExecutor:
        memo = {} if memo is None else memo
        # A value, and what it may hold (a recording's tape, a transport) is to be shared or cannot be copied.
        memo[id(self.cluster)] = self.cluster
        copied: GkeCodeExecutor = super().__deepcopy__(memo)
        return copied

    def __enter__(self) -> GkeCodeExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sandbox().__exit__(kind, error, trace)

    def close(self) -> None:
        """End the executions in flight, delete their Jobs, close the connections. Idempotent, and for good."""
        self._sandbox().close()

    def execute_code(
        self, invocation_context: InvocationContext, code_execution_input: CodeExecutionInput
    ) -> CodeExecutionResult:
        """Run the code as ``main.py``, with the input files in its working directory, and wait for its end.

        With exit code 0 the result's stderr is empty. Otherwise stderr says what happened: the end of the
        program's own stderr, how it ended, the end of its stdout; or why it could not be run. `exit_code` is the
        program's own, 128+N for a signal N, 124 for the time limit, 137 for memory or a pod that was taken away,
        and None if there is none. Output files are those that the program made or changed in its working
        directory, as bytes.
        """
        try:
            settings = self._settings_for(invocation_context)
            result = self._sandbox().run(
                code_execution_input.code,
                files=input_files(code_execution_input.input_files),
                **{name: getattr(settings, name) for name in SETTING_NAMES},
            )
        except SandboxError as error:
            hint = f"; {error.hint}" if error.hint else ""
            # Whoever closes the executor knows that it ends what runs.
            expected = isinstance(error, SandboxClosed) and error.may_have_run
            level = logging.INFO if expected else logging.WARNING
            logger.log(level, "no result of the code of agent %s: %s%s", _agent(invocation_context), error, hint)
            return of_error(error)
        if result.status != "succeeded":
            logger.info(
                "the code of agent %s: %s (Job %s)", _agent(invocation_context), result.summary, result.job
            )
        dropped = dataclasses.astuple(result.dropped)
        if any(dropped):
            logger.warning(
                "the code of agent %s: lost over its limits: %d bytes of stdout, %d of stderr, %d files (Job %s)",
                _agent(invocation_context),
                *dropped,
                result.job,
            )
        return of_result(result, settings, show_stderr=self.show_stderr)

    # -- fields ----------------------------------------------------------------------------------------------

    def _lower(self) -> None:
        """Lower the default requests to their limits. They count as not given, and yet a dump has them."""
        for setting, limit in fields.LIMITS.items():
            request = ADK_FIELDS[setting]
            default = type(self).model_fields[request].default
            # The default of a subclass counts as set.
            ours = default == GkeCodeExecutor.model_fields[request].default
            if ours and request not in self.model_fields_set:
                self.__dict__[request] = capped_request(setting, self.__dict__[ADK_FIELDS[limit]])

    def _check(self) -> None:
        """Raise `SpecError` for what cannot be."""
        if self.executor_type == "sandbox":
            raise SpecError(
                "executor_type",
                "'sandbox' (Agent Sandbox) is not there yet",
                hint="leave it out: each piece of code runs in a Job of its own, under gVisor",
            )
        if self.stateful:
            raise SpecError(
                "stateful",
                "must be False: each execution has a pod of its own, and nothing is left of it for the next",
                hint="let the code print what the next piece needs",
            )
        if self.cluster is not None and (self.kubeconfig_path or self.kubeconfig_context):
            raise SpecError(
                "cluster", "excludes kubeconfig_path and kubeconfig_context", hint="give one or the other"
            )
        self._settings_for(None)

    def _settings_for(self, context: InvocationContext | None) -> Settings:
        """The settings of an execution. Raises `SpecError`."""
        now = self.__dict__  # Another thread may assign meanwhile, and then there is another one.
        values = {name: now[name] for name in ADK_FIELDS.values()}
        more = dict(now["settings"])
        values["labels"] = {**_labels(context), **values["labels"]}
        annotations = more.get("annotations", {})
        if isinstance(annotations, Mapping):
            more["annotations"] = {**_annotations(context), **annotations}
        return fields.to_settings(values, more)

    def _sandbox(self) -> Sandbox:
        found = Cluster.auto(self.kubeconfig_path, self.kubeconfig_context)
        return self._opened.sandbox(self.cluster or found, self.namespace)


# What is looked at here is little, and may be missing: a test of an agent may pass something simpler.


def _labels(context: InvocationContext | None) -> dict[str, str]:
    agent = _agent(context)
    return {AGENT_LABEL: agent} if isinstance(agent, str) and agent and not names.label_value(agent) else {}


def _annotations(context: InvocationContext | None) -> dict[str, str]:
    invocation = getattr(context, "invocation_id", None)
    return {INVOCATION_ANNOTATION: invocation} if isinstance(invocation, str) else {}


def _agent(context: InvocationContext | None) -> object:
    return getattr(getattr(context, "agent", None), "name", None)

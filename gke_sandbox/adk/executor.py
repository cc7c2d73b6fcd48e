"""GkeCodeExecutor: runs the code of an ADK agent, each piece in a new gVisor pod."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult
from pydantic import ConfigDict, Field, InstanceOf, PlainSerializer, PrivateAttr, WithJsonSchema

from .._checks import check_text, check_warm, describe
from .._setting_names import ADK_FIELDS, SETTING_NAMES
from ..cluster import Cluster, _check_cluster
from ..errors import SandboxClosed, SandboxError, SpecError
from ..kube import names
from ..settings import AGENT_LABEL, INVOCATION_ANNOTATION, capped_request
from . import fields, unsupported
from .fences import code_block_delimiters, remove_indentation
from .files import input_files
from .hints import failure_hint
from .results import for_operator, from_error, from_result

if TYPE_CHECKING:
    from google.adk.agents.invocation_context import InvocationContext

    from ..settings import Settings, SettingsDict
    from ..sync import Sandbox

__all__ = ["AGENT_LABEL", "INVOCATION_ANNOTATION", "GkeCodeExecutor"]

logger = logging.getLogger(__name__)

_FIXED = ("cluster", "kubeconfig_path", "kubeconfig_context", "namespace", "warm", "warm_idle_timeout_seconds")
"""Fields that the open Sandbox depends on."""


_Cluster = Annotated[InstanceOf[Cluster], PlainSerializer(repr), WithJsonSchema({"type": "string"})]
"""A field that is dumped as its repr, without a token: ``adk web`` shows the dumps of agents to its users."""


class _LazySandbox:
    """The Sandbox of one executor, created at first use. Copies, also by pickle, create another one.

    It has no lock, because a fork can copy a locked one. All instances are equal, so that executors are compared
    by their fields.
    """

    def __init__(self) -> None:
        self._made: dict[str, Sandbox] = {}

    def sandbox(self, new: Callable[[], Sandbox]) -> Sandbox:
        """Return the Sandbox, the same for every thread; `new` creates it. It connects in its first run."""
        made = self._made.get("sandbox")
        if made is None:
            # If two threads get here at the same time, one Sandbox is dropped; it was never opened.
            made = self._made.setdefault("sandbox", new())
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LazySandbox)

    def __hash__(self) -> int:
        return hash(_LazySandbox)

    def __deepcopy__(self, memo: object) -> _LazySandbox:
        return _LazySandbox()

    def __reduce__(self) -> tuple[type[_LazySandbox], tuple[()]]:
        return _LazySandbox, ()


class GkeCodeExecutor(BaseCodeExecutor):
    """Runs the code that the model of an agent writes, each piece in a new gVisor pod that is then deleted.

    Replaces ``google.adk.code_executors.GkeCodeExecutor``, with the same constructor and fields. Invalid fields
    raise `SpecError` (or pydantic's ``ValidationError`` for a wrong type) when the executor is created. The
    cluster is looked up at the first execution. Any number of threads and agents can share one executor.

    `close` cancels running executions and deletes their Jobs. ADK does not close executors, and neither does
    ``Runner.close()``: an executor that is never closed deletes its Jobs at interpreter exit. A copy (deep, by
    pickle or by ``model_copy``) has the same fields and separate connections, and its own warm pods.

    `execute_code` returns errors as results: see there.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, hide_input_in_errors=True)

    # -- fields of google-adk -----------------------------------------------------------------------------

    namespace: str = "default"
    """Namespace of the Jobs. Default: ``default``. Like `cluster` and the kubeconfig, it is final."""
    image: str = "python:3.11-slim"
    """Container image; it needs ``python3``, 3.8 or newer. Default: ``python:3.11-slim``."""
    timeout_seconds: int = 300
    """Seconds that the program may run, counted from its start. Default: 300."""
    executor_type: Literal["job", "sandbox"] = "job"
    """Default: ``job``. ``sandbox`` (Agent Sandbox) is not supported yet: `SpecError`."""
    cpu_requested: str = "200m"
    """CPU request, in cores. Default: ``200m``, or `cpu_limit` if that is smaller."""
    mem_requested: str = "256Mi"
    """Memory request, in bytes. Default: ``256Mi``, or `mem_limit` if that is smaller."""
    cpu_limit: str = "500m"
    """CPU limit, in cores. Default: ``500m``."""
    mem_limit: str = "512Mi"
    """Memory limit, in bytes. Default: ``512Mi``."""
    kubeconfig_path: str | None = None
    """Path of a kubeconfig. Default: None, the cluster of this pod, else the cluster that kubectl would use."""
    kubeconfig_context: str | None = None
    """Context of the kubeconfig. Default: None, the current context."""
    sandbox_gateway_name: str | None = None
    """For ``executor_type="sandbox"``: accepted, and ignored for Jobs. Default: None."""
    sandbox_template: str | None = "python-sandbox-template"
    """For ``executor_type="sandbox"``: accepted, and ignored for Jobs. Default: ``python-sandbox-template``."""
    sandbox_warmpool: str | None = None
    """For ``executor_type="sandbox"``: accepted, and ignored for Jobs. Default: None."""

    code_block_delimiters: list[tuple[str, str]] = Field(default_factory=code_block_delimiters, repr=False)
    """Delimiters of the code blocks that ADK runs. Default: google-adk's, and other spellings of their fences."""

    # -- additional fields --------------------------------------------------------------------------------

    cluster: _Cluster | None = None
    """Cluster, instead of a kubeconfig: `Cluster.gke`, `Cluster.local`, `Cluster.replay`, ... Default: None."""
    startup_timeout_seconds: float = 300.0
    """Seconds from the creation of the Job until the container runs. Default: 300."""
    runtime_class_name: str | None = "gvisor"
    """RuntimeClass. Default: ``gvisor``. None uses the default runtime of the cluster."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have. Default: none."""
    service_account_name: str | None = None
    """Service account of the pod; its token is never mounted. Default: None, ``default``."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Additional labels of Job, pod and ConfigMap. Default: none."""
    max_output_bytes: int = 1 << 20
    """Bytes of stdout, and of stderr, that are kept. Default: 1 MiB. ADK passes all of stdout to the model."""
    max_file_bytes: int = 4 << 20
    """Bytes of all output files together that are kept. Default: 4 MiB."""
    warm: int = 0
    """Number of pods that wait for code, so that a block takes some 25 ms. Default: 0; maximum: 1,000.

    They are created when the executor is opened: by its ``with`` block, by `open` or `check`, or at the first
    execution. Code that a field changed after that affects starts in a new pod. See docs/warm.md.
    """
    warm_idle_timeout_seconds: float = 600.0
    """Seconds that a warm pod waits before it is replaced. Default: 600."""
    show_stderr: bool = True
    """Whether stderr of a program with exit code 0 follows its stdout, under a heading. Default: True."""
    settings: dict[str, Any] = Field(default_factory=dict, repr=False, exclude=True)
    """Other fields of `gke_sandbox.settings.Settings`: ``{"env": {...}, "max_files": 10}``. Default: none.

    Not part of dumps, because it may contain secrets.
    """

    _lazy: _LazySandbox = PrivateAttr(default_factory=_LazySandbox)

    def __init__(
        self,
        kubeconfig_path: str | None = None,
        kubeconfig_context: str | None = None,
        *,
        settings: SettingsDict | None = None,
        **data: Any,
    ) -> None:
        unsupported.check_class(type(self), BaseCodeExecutor)  # A class can be changed after its creation.
        known = type(self).model_fields
        aliases = fields.aliases(known.values())
        for name in data:
            if name not in known and name not in aliases:
                near = fields.near_field(name, known)
                hint = f"Did you mean {near}?" if near else f"The fields are {', '.join(known)}."
                raise SpecError(name, f"unknown field of {type(self).__name__}", hint=hint)
        # None is not passed on, so that the defaults of a subclass apply.
        if kubeconfig_path is not None:
            data["kubeconfig_path"] = kubeconfig_path
        if kubeconfig_context is not None:
            data["kubeconfig_context"] = kubeconfig_context
        if settings is not None:
            data["settings"] = settings
        super().__init__(**data)
        self._cap_requests()
        self._check()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        unsupported.check_class(cls, GkeCodeExecutor)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in unsupported.HOOKS:
            raise unsupported.hook_error(name)
        if name not in type(self).model_fields:
            super().__setattr__(name, value)
            return
        if name in _FIXED:
            raise SpecError(
                name,
                "cannot be changed after the executor is created",
                hint=f"Create another executor: model_copy(update={{{name!r}: ...}}).",
            )
        changed = self.model_copy()
        super(GkeCodeExecutor, changed).__setattr__(name, value)
        changed._cap_requests()
        changed._check()
        # Replaced in one step, so that other threads never read a new limit with an old request.
        object.__setattr__(self, "__pydantic_fields_set__", changed.model_fields_set)
        object.__setattr__(self, "__dict__", changed.__dict__)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> GkeCodeExecutor:
        """Return a copy, as in pydantic: updated fields are checked at the next execution."""
        source = copy.deepcopy(self) if deep else self
        copied: GkeCodeExecutor = super(GkeCodeExecutor, source).model_copy(update=update)
        copied._cap_requests()
        return copied

    def __copy__(self) -> GkeCodeExecutor:
        copied: GkeCodeExecutor = super().__copy__()
        copied._lazy = _LazySandbox()
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> GkeCodeExecutor:
        memo = {} if memo is None else memo
        # Shared: its recording or transport must be shared or cannot be copied.
        memo[id(self.cluster)] = self.cluster
        copied: GkeCodeExecutor = super().__deepcopy__(memo)
        return copied

    def __enter__(self) -> GkeCodeExecutor:
        if self.warm:
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sandbox().__exit__(kind, error, trace)

    def open(self) -> GkeCodeExecutor:
        """Connect now, and create the warm pods, instead of at the first execution. Raises `ConfigError`."""
        self._sandbox().open()
        return self

    def close(self) -> None:
        """Cancel running executions, delete their Jobs and close the connections.

        The executor cannot be used afterwards. You can call this method more than once.
        """
        self._sandbox().close()

    def check(self) -> None:
        """Check that code can run. Raises `ConfigError`, which lists everything that prevents it.

        Call it at start-up: otherwise a wrong cluster or a missing permission is found in the first conversation,
        where only the model gets the error. Checks the connection, each permission, the namespace, and with a
        server-side dry run whether the server accepts the Job and the ConfigMap as they are sent. Creates nothing.
        """
        settings = self._settings_for(None)
        self._sandbox().check(**_as_options(settings))

    def execute_code(
        self, invocation_context: InvocationContext, code_execution_input: CodeExecutionInput
    ) -> CodeExecutionResult:
        """Run the code as ``main.py``, with the input files in its working directory, and return its result.

        With exit code 0, stderr of the result is empty. Otherwise it contains the end of the program's stderr, how
        the program ended, and the end of its stdout; or why the program could not be run. `exit_code` is that of
        the program, 128+N for signal N, 124 for the time limit, 137 for the memory limit or a terminated pod, and
        None without an exit code. Output files are those that the program created or changed in its working
        directory, as bytes. Raises no `SandboxError`: errors are results, and are logged.
        """
        try:
            settings = self._settings_for(invocation_context)
            result = self._sandbox().run(
                remove_indentation(check_text("code", code_execution_input.code)),
                files=input_files(code_execution_input.input_files),
                **_as_options(settings),
            )
        except SandboxError as error:
            self._log_error(error, invocation_context)
            return from_error(error)
        # A warm pod has no annotation with the invocation: this record connects the two.
        logger.info(
            "the code of agent %s (invocation %s): %s (%s start, Job %s, pod %s)",
            _agent(invocation_context),
            getattr(invocation_context, "invocation_id", None),
            result.summary,
            result.start,
            result.job,
            result.pod,
        )
        dropped = result.dropped
        if dropped.stdout or dropped.stderr or dropped.files:
            from .._diagnosis.dropped_files import describe_dropped_files

            logger.warning(
                "the code of agent %s: dropped %d bytes of stdout, %d of stderr, %d files%s (%s)",
                _agent(invocation_context),
                dropped.stdout,
                dropped.stderr,
                dropped.files,
                "".join(f"; {text}" for text in describe_dropped_files(dropped)),
                result.job,
            )
        earlier = _earlier_code(invocation_context, code_execution_input.code)
        hint = failure_hint(result, earlier, image=settings.image, local=self._cluster()._is_local)
        return from_result(result, settings, show_stderr=self.show_stderr, hint=hint)

    def _log_error(self, error: SandboxError, context: InvocationContext) -> None:
        level = logging.WARNING
        if for_operator(error):
            level = logging.ERROR
        elif isinstance(error, SandboxClosed) and error.may_have_run:
            level = logging.INFO  # Closing the executor cancels executions, so that this error is not a problem.
        try:
            cluster: object = self._cluster()
        except SpecError:
            cluster = self.kubeconfig_path
        logger.log(
            level,
            "no result for the code of agent %s (invocation %s, namespace %s, cluster %r): %s: %s%s",
            _agent(context),
            getattr(context, "invocation_id", None),
            self.namespace,
            cluster,
            type(error).__name__,
            error.message,
            f". {error.hint}" if error.hint else "",
        )

    # -- fields ----------------------------------------------------------------------------------------------

    def _cap_requests(self) -> None:
        """Lower default requests to their limits. They count as not set, but dumps contain them."""
        for setting in ("cpu_request", "memory_request"):
            request, limit = ADK_FIELDS[setting], ADK_FIELDS[setting.replace("request", "limit")]
            default = type(self).model_fields[request].default
            # The default of a subclass counts as set.
            ours = default == GkeCodeExecutor.model_fields[request].default
            if ours and request not in self.model_fields_set:
                self.__dict__[request] = capped_request(setting, self.__dict__[limit])

    def _check(self) -> None:
        """Raise `SpecError` if a field is invalid."""
        if self.executor_type == "sandbox":
            raise SpecError(
                "executor_type",
                "'sandbox' (Agent Sandbox) is not supported yet",
                hint="Leave it out: each piece of code runs in a new Job, under gVisor.",
            )
        if self.stateful:
            raise SpecError(
                "stateful",
                "must be False: each execution has a new pod, and no state is kept for the next one",
                hint="Let the code print the values that the next piece of code needs.",
            )
        if self.cluster is not None and (self.kubeconfig_path or self.kubeconfig_context):
            raise SpecError(
                "cluster",
                "cannot be combined with kubeconfig_path or kubeconfig_context",
                hint="Set only one of them.",
            )
        _check_cluster(self._cluster())
        delivery = self._settings_for(None).delivery
        idle_name = "warm_idle_timeout_seconds"
        check_warm(self.warm, self.warm_idle_timeout_seconds, delivery=delivery, idle_name=idle_name)

    def _settings_for(self, context: InvocationContext | None) -> Settings:
        """Return the settings of an execution. Raises `SpecError`."""
        now = self.__dict__  # An assignment in another thread replaces the whole dictionary.
        values = {name: now[name] for name in ADK_FIELDS.values()}
        if not isinstance(now["settings"], Mapping):
            raise SpecError("settings", f"must be a mapping, got {describe(now['settings'])}")
        more = dict(now["settings"])
        agent, invocation = _agent(context), getattr(context, "invocation_id", None)
        labels, annotations = values["labels"], more.get("annotations", {})
        if isinstance(labels, Mapping) and isinstance(agent, str) and agent and not names.label_value(agent):
            values["labels"] = {AGENT_LABEL: agent, **labels}
        if isinstance(annotations, Mapping) and isinstance(invocation, str):
            more["annotations"] = {INVOCATION_ANNOTATION: invocation, **annotations}
        return fields.to_settings(values, more)

    def _cluster(self) -> Cluster:
        given: Cluster | None = self.cluster
        if given is not None:
            return given
        try:
            return Cluster.auto(self.kubeconfig_path, self.kubeconfig_context)
        except SpecError as error:
            raise error.renamed({"path": "kubeconfig_path", "context": "kubeconfig_context"}) from None

    def _sandbox(self) -> Sandbox:
        return self._lazy.sandbox(self._new_sandbox)

    def _new_sandbox(self) -> Sandbox:
        from ..sync import Sandbox

        if not self.warm:
            return Sandbox(self._cluster(), namespace=self.namespace)
        settings = self._settings_for(None)
        return Sandbox(
            self._cluster(),
            warm=self.warm,
            warm_idle_timeout=self.warm_idle_timeout_seconds,
            **_as_options(settings),
        )


def _as_options(settings: Settings) -> dict[str, Any]:
    """Return the settings as keyword arguments of a Sandbox."""
    return {name: getattr(settings, name) for name in SETTING_NAMES}


# The context may be a simpler object in tests of an agent, so missing attributes are allowed.


def _earlier_code(context: InvocationContext | None, code: str) -> Iterator[str]:
    """Return the code blocks of the conversation except `code`, which ADK has already added to it."""
    for event in list(getattr(getattr(context, "session", None), "events", ())):
        for part in (event.content and event.content.parts) or ():
            if part.executable_code and part.executable_code.code not in (None, code):
                yield part.executable_code.code


def _agent(context: InvocationContext | None) -> object:
    return getattr(getattr(context, "agent", None), "name", None)

"""The scenarios: programs with settings, and the expected outcome on every cluster.

A scenario has the same name as its cassette in fixtures/ and as the recording that the cassette was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gke_sandbox import SandboxError, StartError
from gke_sandbox._wire.dropped import DroppedFile, DroppedOutput
from gke_sandbox.errors import Forbidden, Invalid, Unauthorized

__all__ = ["IDLE_TIMEOUT", "SCENARIOS", "Expected", "Run", "Scenario"]


_NOTHING = DroppedOutput()
# The settings of the recorder that affect outcomes: `execution-out-of-memory` exceeds the limit of 128Mi.
_COMMON: dict[str, Any] = {
    "timeout": 30,
    "memory_request": "64Mi",
    "memory_limit": "128Mi",
    "ephemeral_storage_limit": "128Mi",
}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected outcome. Without `status` and `error` the run was cancelled.

    `stderr` and `reason` are patterns, `made` are files, `cause` is a name in the table of causes. The error
    with its hint, or the message of the result, contains `words`; `waits` are reasons of `PodWaiting` events.
    """

    status: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stdout: str | bytes = ""
    stderr: str = ""
    made: Mapping[str, bytes] = field(default_factory=dict)
    dropped: DroppedOutput = _NOTHING
    missing: bool = False
    error: type[SandboxError] | None = None
    cause: str = ""
    reason: str = ""
    words: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One program. It is cancelled as soon as it has printed `until`, if that is set."""

    code: str
    expected: Expected
    files: Mapping[str, bytes] = field(default_factory=dict)
    until: str = ""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Programs that run concurrently in one Sandbox with these settings.

    `not_live` is the reason why it cannot run on a live cluster. `namespace` replaces the default namespace. With
    `warm`, the programs start when this number of warm pods is ready.
    """

    runs: tuple[Run, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    not_live: str = ""
    warm: int = 0
    namespace: str | None = None

    @property
    def all_settings(self) -> dict[str, Any]:
        """The settings of the Sandbox without its namespace."""
        return {**_COMMON, **self.settings}


def _one(
    code: str,
    *,
    files: Mapping[str, bytes] | None = None,
    until: str = "",
    settings: Mapping[str, Any] | None = None,
    not_live: str = "",
    namespace: str | None = None,
    **expected: Any,
) -> Scenario:
    run = Run(code, Expected(**expected), files or {}, until)
    return Scenario(runs=(run,), settings=settings or {}, not_live=not_live, namespace=namespace)


def _prints(code: str, stdout: str, **more: Any) -> Scenario:
    return _one(code, status="succeeded", exit_code=0, stdout=stdout, **more)


HOLA = "print('hola')\n"
_SLEEPS = "import time\nprint('started', flush=True)\ntime.sleep(60)\n"
_SOON = {"startup_timeout": 10}
_ATTACH = {"delivery": "attach"}
IDLE_TIMEOUT = 600.0
"""How long the warm pods of a scenario wait, in seconds."""
_CAPPED = "import sys\nfor i in range(4000): print('x' * 79)\nprint('y' * 40000)\n"

SCENARIOS: dict[str, Scenario] = {
    # -- the program exits by itself --------------------------------------------------------------------------
    "execution-success": _prints(HOLA, "hola\n"),
    "execution-mounted": _prints(HOLA, "hola\n", settings={"delivery": "mount", "tmp_size": "16Mi"}),
    "execution-exit-3": _one(
        "import sys\nprint('to stdout')\nprint('to stderr', file=sys.stderr)\nsys.exit(3)\n",
        status="failed",
        exit_code=3,
        stdout="to stdout\n",
        stderr="to stderr\n",
    ),
    "execution-traceback": _one(
        "def f():\n    return 1/0\nf()\n",
        status="failed",
        exit_code=1,
        stderr=r"Traceback \(most .*main\.py\", line 3, in <module>.*line 2, in f.*ZeroDivisionError: [a-z ]+\n",
    ),
    "execution-files": _prints(
        "rows = open('data.csv').read().split()\nopen('sum.txt','w').write(str(sum(map(int, rows))))\n"
        "open('bytes.bin','wb').write(bytes(range(256)))\nprint(len(rows))\n",
        "3\n",
        files={"data.csv": b"1\n2\n3"},
        made={"bytes.bin": bytes(range(256)), "sum.txt": b"6"},
    ),
    "execution-streaming": _prints(
        "import time, sys\nfor i in range(5):\n    print('line', i)\n    print('err', i, file=sys.stderr)\n"
        "    time.sleep(0.25)\n",
        "".join(f"line {i}\n" for i in range(5)),
        stderr="".join(f"err {i}\n" for i in range(5)),
    ),
    "execution-bytes": _one(
        "import sys\nsys.stdout.buffer.write('ñandú 🦉'.encode() + b'\\xff\\x00\\x1eout 3\\n')\n"
        "sys.stdout.flush()\n",
        status="succeeded",
        exit_code=0,
        stdout="ñandú 🦉".encode() + b"\xff\x00\x1eout 3\n",
    ),
    "execution-output-capped": _prints(
        _CAPPED,
        (("x" * 79 + "\n") * 4000)[:131072],
        dropped=DroppedOutput(stdout=228929),
        settings={"max_output_bytes": 131072},
    ),
    "execution-runs-to-log-end": _prints(HOLA, "hola\n"),
    "execution-signal": _one(
        "import os, signal\nprint('bye')\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        status="signaled",
        signal=11,
        stdout="bye\n",
    ),
    "program-forges-frames": _one(
        "import os\nfd = os.open('/proc/1/fd/1', os.O_WRONLY)\n"
        "os.write(fd, b'\\x1efile 4 \"../../evil\"\\nAAAA\\n\\x1eexit 2\\n{}\\n')\nprint('done')\n",
        status="succeeded",
        exit_code=0,
        stdout="done\n",
        dropped=DroppedOutput(files=1, named_files=(DroppedFile("../../evil", "refused_name"),)),
    ),
    "two-executions-one-watch": Scenario(
        runs=tuple(
            Run(f"print({n})\n", Expected(status="succeeded", exit_code=0, stdout=f"{n}\n")) for n in (0, 1)
        )
    ),
    # -- the client attaches ------------------------------------------------------------------------------------
    "attach-success": _prints(
        "import sys\nprint('hola')\nprint('to stderr', file=sys.stderr)\n",
        "hola\n",
        stderr="to stderr\n",
        settings=_ATTACH,
    ),
    "attach-streaming": _prints(
        "import time\nfor i in range(5): print('line', i); time.sleep(0.25)\n",
        "".join(f"line {i}\n" for i in range(5)),
        settings=_ATTACH,
    ),
    "attach-out-of-memory": _one(
        "print('before')\nb = bytearray(10**9)\nfor i in range(0, len(b), 4096): b[i] = 1\n",
        settings=_ATTACH,
        status="out_of_memory",
        signal=9,
        stdout="before\n",
        missing=True,
        cause="out_of_memory",
        reason="OOMKilled",
        words=("memory",),
    ),
    "attach-warm": Scenario(
        runs=tuple(
            Run(f"print({n})\n", Expected(status="succeeded", exit_code=0, stdout=f"{n}\n")) for n in (0, 1)
        ),
        settings=_ATTACH,
        warm=2,
    ),
    # -- the program is killed ---------------------------------------------------------------------------------
    "execution-time-limit": _one(
        "import time\nprint('started')\nwhile True: time.sleep(0.1)\n",
        settings={"timeout": 2},
        status="timed_out",
        signal=9,
        stdout="started\n",
    ),
    "execution-out-of-memory": _one(
        "print('before')\nb = bytearray(10**9)\nfor i in range(0, len(b), 4096): b[i] = 1\nprint('after')\n",
        status="out_of_memory",
        signal=9,
        stdout="before\n",
        missing=True,
        cause="out_of_memory",
        reason="OOMKilled",
        words=("memory",),
    ),
    "program-stops-the-runner": _one(
        "import os, signal\nprint('x', flush=True)\nos.kill(1, signal.SIGKILL)\nimport time\ntime.sleep(5)\n",
        status="killed",
        signal=9,
        missing=True,
        cause="killed_by_signal",
        reason="Error",
        words=("signal 9",),
    ),
    "job-deleted-by-client": _one(_SLEEPS, until="started\n", stdout="started\n"),
    "deadline-exceeded": _one(
        _SLEEPS,
        not_live="the client stops a program before the activeDeadlineSeconds of its Job",
        status="killed",
        signal=9,
        stdout="started\n",
        missing=True,
        cause="job_deadline",
        reason="DeadlineExceeded",
        words=("deadline",),
    ),
    "evicted": _one(
        "import time\nprint('filling', flush=True)\nwith open('/tmp/big', 'wb') as f:\n"
        "    for i in range(48): f.write(b'z' * (1 << 20))\ntime.sleep(100)\n",
        settings={"delivery": "mount", "tmp_size": "16Mi", "timeout": 110},
        status="killed",
        signal=9,
        stdout="filling\n",
        missing=True,
        cause="storage_exceeded",
        reason="Evicted",
        words=("EmptyDir volume", "16Mi"),
    ),
    # -- the program starts late or never ----------------------------------------------------------------------
    "late-configmap": _prints(
        "print('late')\n",
        "late\n",
        not_live="the server must be slow between two requests",
        waits=("CreateContainerConfigError",),
    ),
    "python-missing": _one(
        "print(1)\n",
        settings={"image": "registry.k8s.io/pause:3.10"},
        error=StartError,
        cause="python_missing",
        reason="StartError",
        words=("executable", "python3 on its PATH"),
    ),
    "image-pull-backoff": _one(
        "print(1)\n",
        settings={"image": "registry.invalid/nosuch:1"},
        error=StartError,
        cause="registry_not_found",
        reason="ErrImagePull|ImagePullBackOff",
        words=("registry.invalid/nosuch:1", "Check the image's name"),
        waits=("ErrImagePull",),
    ),
    "unschedulable": _one(
        "print(1)\n",
        settings={"node_selector": {"sandbox.gke.io/runtime": "gvisor"}, **_SOON},
        not_live="no node may have the gVisor label of GKE, and on GKE some nodes have it",
        error=StartError,
        cause="no_gvisor_node",
        reason="Unschedulable",
        words=("node affinity/selector", "within 10 s"),
        waits=("Unschedulable",),
    ),
    "runtime-class-missing": _one(
        "print(1)\n",
        settings={"runtime_class_name": "nosuch", "delivery": "env", **_SOON},
        error=StartError,
        cause="runtime_class_missing",
        reason="FailedCreate",
        words=("the cluster does not have this RuntimeClass", 'RuntimeClass "nosuch" not found', "GKE Sandbox"),
    ),
    "pod-security-violation": _one(
        "print(1)\n",
        settings=_SOON,
        not_live="the strictest standard accepts the pods of this library",
        error=StartError,
        cause="pod_security",
        reason="FailedCreate",
        words=("Pod Security", "violates PodSecurity"),
    ),
    "quota-exceeded": _one(
        "print(1)\n",
        settings=_SOON,
        not_live="the namespace must have a quota of no pods",
        error=StartError,
        cause="quota_too_small",
        reason="FailedCreate",
        words=("quota is smaller than one run needs", "exceeded quota"),
    ),
    # -- the server refuses a request --------------------------------------------------------------------------
    "forbidden": _one(
        HOLA,
        not_live="the caller must have no permissions",
        error=Forbidden,
        reason="Forbidden",
        words=('cannot create resource "jobs"',),
    ),
    "namespace-missing": _one(
        HOLA,
        namespace="no-such-namespace",
        not_live="a caller with permissions in all namespaces gets 404 instead",
        error=Forbidden,
        reason="Forbidden",
        words=('in the namespace "no-such-namespace"',),
    ),
    "unauthorized": _one(
        HOLA, not_live="the credentials must be wrong", error=Unauthorized, reason="Unauthorized"
    ),
    "invalid-job": _one(
        HOLA,
        not_live="this library refuses the settings before it sends a request",
        error=Invalid,
        reason="Invalid",
        words=("must be less than or equal to memory limit",),
    ),
    "configmap-too-large": _one(
        HOLA,
        not_live="this library refuses the settings before it sends a request",
        error=Invalid,
        reason="Invalid",
        words=("may not be more than 1048576 bytes",),
    ),
    # -- temporary failures ------------------------------------------------------------------------------------
    "already-exists": _prints(HOLA, "hola\n", not_live="the connection must break between request and response"),
    "kubelet-restart": _prints(
        "import time\nfor i in range(24):\n    print(i, flush=True); time.sleep(0.5)\n",
        "".join(f"{number}\n" for number in range(24)),
        settings={
            "timeout": 300,
            "memory_request": "256Mi",
            "memory_limit": "512Mi",
            "ephemeral_storage_limit": "256Mi",
        },
        not_live="the kubelet must be restarted during the run",
    ),
    "log-errors": _prints(HOLA, "hola\n", not_live="the kubelet must lag behind the watch"),
}

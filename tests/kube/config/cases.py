"""Cases of configuration: files and an environment, and the expected ClusterConfig or error."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gke_sandbox.errors import ConfigError
from gke_sandbox.kube.config.loader import find_cluster
from gke_sandbox.kube.config.types import ClusterConfig, ConnectionOverrides

from .kubeconfigs import kubeconfig


@dataclass(frozen=True)
class Case:
    """Files (bytes, a value for YAML, None for a directory), how they are used, and the expected outcome.

    `path` and `listed` (for KUBECONFIG, separated by colons) are names in `files`; the pod's service account is in
    ``account``. `expected` has attributes of the ClusterConfig, and ``authorization``: the Authorization headers
    of requests whose responses have the status codes `answers` (a list, or a single one). `error` has parts of the
    message and hint of the expected error. ``DIR`` is replaced by the directory of the files.
    """

    name: str
    files: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    error: tuple[str, ...] = ()
    path: str | None = "config"
    listed: str | None = None
    context: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    overrides: ConnectionOverrides = field(default_factory=ConnectionOverrides)
    answers: tuple[int, ...] = (200,)


def one(name: str, *parts: dict[str, Any], expected: dict[str, Any], **more: Any) -> Case:
    """Return a case of one kubeconfig with one context, and the fields of its cluster, user and context."""
    return Case(name, {"config": kubeconfig(*parts), **more.pop("files", {})}, expected, **more)


def wrong(name: str, *parts: dict[str, Any], error: tuple[str, ...], **more: Any) -> Case:
    """Return a case like `one` with an error that names the file and the last entry with fields."""
    where = ('cluster "k" in DIR/config', 'user "u" in DIR/config', 'context "c" in DIR/config')[len(parts) - 1]
    return Case(name, {"config": kubeconfig(*parts), **more.pop("files", {})}, error=(where, *error), **more)


def named(kind: str, *names: str) -> dict[str, Any]:
    """Return a kubeconfig of empty clusters, users or contexts."""
    return {f"{kind}s": [{"name": name, kind: {}} for name in names]}


def program(*lines: str) -> bytes:
    """Return a plugin. Its `lines` have the number ``n`` of the run, ``info`` and ``give(status)``."""
    return "\n".join(
        [
            f"#!{sys.executable} -IS",
            "import json, os, sys, time",
            'log = open(os.path.join(os.path.dirname(sys.argv[0]), "runs"), "a+")',
            'log.write("run\\n"); log.flush(); log.seek(0); n = len(log.readlines())',
            'info = json.loads(os.environ.get("KUBERNETES_EXEC_INFO", "{}"))',
            "def give(status, version=None):",
            '    print(json.dumps({"kind": "ExecCredential", "status": status,',
            '                      "apiVersion": version or info["apiVersion"]}))',
            *lines,
            "",
        ]
    ).encode()


def check(case: Case, directory: Path) -> None:
    """Write the files, find the cluster, and compare."""
    where = str(directory)
    for name, content in case.files.items():
        path = directory / name
        if content is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
        path.chmod(0o755 if path.read_bytes()[:2] == b"#!" else 0o644)
    if case.error:
        with pytest.raises(ConfigError) as caught:
            _sent(_find(case, directory), case.answers)
        text = f"{caught.value} {caught.value.hint}"
        assert [part for part in case.error if part.replace("DIR", where) not in text] == [], text
        return
    config = _find(case, directory)
    for key, value in case.expected.items():
        if key == "authorization":
            wanted = value if isinstance(value, list) else [value]
            assert _sent(config, case.answers) == wanted
        else:
            found = operator.attrgetter(key)(config)
            assert found == (value.replace("DIR", where) if isinstance(value, str) else value), key


def _find(case: Case, directory: Path) -> ClusterConfig:
    environ = {key: value.replace("DIR", str(directory)) for key, value in case.environ.items()}
    environ.setdefault("HOME", str(directory / "home"))
    if case.listed is not None:
        environ["KUBECONFIG"] = os.pathsep.join(str(directory / name) for name in case.listed.split(":"))
    return find_cluster(
        None if case.path is None else str(directory / case.path),
        case.context,
        environ=environ,
        overrides=case.overrides,
        root=directory / "account",
    )


def _sent(config: ClusterConfig, answers: tuple[int, ...]) -> list[str | None]:
    """Return the Authorization headers of the requests that are sent for the responses."""
    waiting: Iterator[int] = iter(answers)
    headers: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        headers.append(request.headers.get("Authorization"))
        return httpx.Response(next(waiting))

    with httpx.Client(
        transport=httpx.MockTransport(answer), auth=config.auth if config.secure else None
    ) as client:
        while len(headers) < len(answers):
            client.get("https://1.2.3.4:6443/x", headers={})
    return headers

"""The canonical form of a request's body: what the caller chose, without what this library chose. Pure.

The rest of a body (the hardening, the text of the runner, the delivery of the program) changes between releases of
this library; recorded cassettes must still match.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from .._wire.manifests import CONTAINER, PROGRAM_ANNOTATION
from .._wire.payload import env_variable
from .._wire.program import program_digest
from ..settings import MANAGED_BY, SESSION_LABEL
from .stdin_request import content_of

__all__ = ["canonical_form", "digest_of"]

# Labels that this library sets.
_OWN_LABELS = (MANAGED_BY, SESSION_LABEL)
# The prefix of variables that this library sets: the runner with delivery attach.
_OWN_VARIABLES = env_variable("")
# Raised for a body that this library did not make.
_FOREIGN = (KeyError, TypeError, ValueError, AttributeError, IndexError, zlib.error, binascii.Error)


def canonical_form(body: Any) -> Any:
    """Return what the caller chose about a Job, a ConfigMap or a request on stdin of this library.

    Any other body is returned unchanged.
    """
    if not isinstance(body, Mapping):
        return body
    try:
        if body.get("kind") == "Job":
            return _canonical_job(body)
        if body.get("kind") == "ConfigMap":
            return {"name": body["metadata"]["name"], **_readable(_program(body))}
        if body.get("kind") == "DeleteOptions":
            return {}
        if "kind" not in body and "protocol" in body:
            env = {each["name"]: each["value"] for each in body.get("env") or ()}
            return {**_readable(_sent_program(body)), "env": env}
    except _FOREIGN:
        return body
    return body


def digest_of(body: Any) -> str | None:
    """Return the digest of the program in a ConfigMap or a request on stdin.

    Return None if this library did not make it.
    """
    try:
        return program_digest(**(_program(body) if "data" in body else _sent_program(body)))
    except _FOREIGN:
        return None


def _canonical_job(job: Mapping[str, Any]) -> dict[str, Any]:
    metadata, pod = job["metadata"], job["spec"]["template"]["spec"]
    (container,) = (each for each in pod["containers"] if each["name"] == CONTAINER)
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    annotations = metadata.get("annotations") or {}
    return {
        "name": metadata["name"],
        "session": metadata["labels"][SESSION_LABEL],
        "labels": {name: value for name, value in metadata["labels"].items() if name not in _OWN_LABELS},
        "annotations": {name: value for name, value in annotations.items() if name != PROGRAM_ANNOTATION},
        "image": container["image"],
        "image_pull_policy": container.get("imagePullPolicy"),
        "image_pull_secrets": pod.get("imagePullSecrets"),
        "env": {
            each["name"]: each.get("value", "")
            for each in container.get("env") or ()
            if "valueFrom" not in each and not each["name"].startswith(_OWN_VARIABLES)
        },
        "cpu": [requests.get("cpu"), limits.get("cpu")],
        "memory": [requests.get("memory"), limits.get("memory")],
        "ephemeral_storage_limit": limits.get("ephemeral-storage"),
        "runtime_class_name": pod.get("runtimeClassName"),
        "node_selector": pod.get("nodeSelector"),
        "tolerations": pod.get("tolerations"),
        "priority_class_name": pod.get("priorityClassName"),
        "service_account_name": pod.get("serviceAccountName"),
        "run_as": [pod["securityContext"].get("runAsUser"), pod["securityContext"].get("runAsGroup")],
    }


def _program(config_map: Mapping[str, Any]) -> dict[str, Any]:
    """Return the program in a ConfigMap as the arguments of `program_digest`."""
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    request = json.loads(data["request"])

    def content(entry: Any) -> bytes:
        encoding, keys = entry
        pieces = [data[key].encode() if key in data else base64.b64decode(binary[key]) for key in keys]
        joined = b"".join(pieces)
        if encoding == "base64":
            return base64.b64decode(joined)
        return zlib.decompress(joined) if encoding == "zlib" and joined else joined

    return _arguments(request, content)


def _sent_program(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the program in a request on stdin as the arguments of `program_digest`."""
    return _arguments(request, content_of)


def _arguments(request: Mapping[str, Any], content: Callable[[Any], bytes]) -> dict[str, Any]:
    limits = request["limits"]
    return {
        "code": content(request["code"]),
        "stdin": None if request["stdin"] is None else content(request["stdin"]),
        "files": {name: content(entry) for name, entry in request["files"].items()},
        "args": request["args"],
        "timeout": request["timeout"],
        "max_output_bytes": limits["output"],
        "max_file_bytes": limits["file_bytes"],
        "max_files": limits["files"],
    }


def _readable(value: Any) -> Any:
    """Return bytes, also those in a mapping, as text."""
    if isinstance(value, Mapping):
        return {name: _readable(item) for name, item in value.items()}
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(value).decode()}"

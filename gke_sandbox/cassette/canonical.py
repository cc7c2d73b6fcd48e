"""What a caller chose, read off the bodies that this library sends. Pure.

The rest of a body (the hardening, the runner's text, by which way the program travels) is the library's own and
changes between releases; a cassette that somebody recorded should go on matching.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

from .._wire.manifests import CONTAINER
from ..settings import MANAGED_BY, SESSION_LABEL

__all__ = ["meaning"]

_ECHOED = (MANAGED_BY, SESSION_LABEL)


def meaning(body: Any) -> Any:
    """What the caller chose of a Job or of a ConfigMap of ours; any other body as it is."""
    if not isinstance(body, Mapping):
        return body
    try:
        if body.get("kind") == "Job":
            return _of_job(body)
        if body.get("kind") == "ConfigMap":
            return _of_config_map(body)
        if body.get("kind") == "DeleteOptions":
            return {}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, zlib.error, binascii.Error):
        # Not of our making: then all of it counts.
        return body
    return body


def _of_job(job: Mapping[str, Any]) -> dict[str, Any]:
    metadata, pod = job["metadata"], job["spec"]["template"]["spec"]
    (container,) = (each for each in pod["containers"] if each["name"] == CONTAINER)
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    return {
        "name": metadata["name"],
        "session": metadata["labels"][SESSION_LABEL],
        "labels": {name: value for name, value in metadata["labels"].items() if name not in _ECHOED},
        "annotations": dict(metadata.get("annotations") or {}),
        "image": container["image"],
        "image_pull_policy": container.get("imagePullPolicy"),
        "image_pull_secrets": pod.get("imagePullSecrets"),
        "env": {
            each["name"]: each.get("value", "") for each in container.get("env") or () if "valueFrom" not in each
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


def _of_config_map(config_map: Mapping[str, Any]) -> dict[str, Any]:
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    request = json.loads(data["request"])
    limits = request["limits"]

    def content(entry: Any) -> Any:
        if entry is None:
            return None
        encoding, keys = entry
        pieces = [data[key].encode() if key in data else base64.b64decode(binary[key]) for key in keys]
        return _readable(_whole(encoding, b"".join(pieces)))

    return {
        "name": config_map["metadata"]["name"],
        "code": content(request["code"]),
        "stdin": content(request["stdin"]),
        "files": {name: content(entry) for name, entry in request["files"].items()},
        "args": request["args"],
        "timeout": request["timeout"],
        "max_output_bytes": limits["output"],
        "max_file_bytes": limits["file_bytes"],
        "max_files": limits["files"],
    }


def _whole(encoding: str, joined: bytes) -> bytes:
    if encoding == "base64":
        return base64.b64decode(joined)
    if encoding == "zlib" and joined:
        return zlib.decompress(joined)
    return joined


def _readable(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(content).decode()}"

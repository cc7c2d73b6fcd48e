"""From a pod's container to what a runtime is asked for: environment, files, limits. Pure, given the ConfigMaps.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from posixpath import join

from ...kube.quantity import parse_quantity
from ..objects import Json
from ..runtimes.base import ContainerSpec
from .pod_status import HOST_IP

ConfigMaps = Callable[[str], "Json | None"]
"""Finds a ConfigMap of the pod's namespace by its name."""

_REFERENCE = re.compile(r"\$(\$|\([^)]*\))")
_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['([^']+)'\]$")
_IMAGE = re.compile(
    r"^(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?$"
)


class ContainerConfigError(Exception):
    """The container cannot be made yet: the kubelet reports CreateContainerConfigError with this message."""


class MountError(Exception):
    """A volume cannot be mounted yet: the kubelet reports FailedMount."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {why}')


def image_error(image: str) -> str:
    """What is wrong with the image's name; empty: nothing."""
    if _IMAGE.match(image):
        return ""
    why = f'couldn\'t parse image name "{image}": invalid reference format'
    return f'Failed to apply default image tag "{image}": {why}'


def pull_error(image: str) -> str:
    """Why the image cannot be pulled; empty: it can. Nothing under ``.invalid`` exists.

    https://www.rfc-editor.org/rfc/rfc2606#section-2
    """
    host = image.partition("/")[0].partition(":")[0]
    return unreachable(image) if host.endswith(".invalid") else ""


def unreachable(image: str) -> str:
    """The container runtime's words about an image whose registry's name cannot be resolved."""
    host, _, rest = image.partition("/") if "/" in image else ("registry-1.docker.io", "", f"library/{image}")
    repository, _, tag = rest.partition(":")
    url = f"https://{host}/v2/{repository}/manifests/{tag or 'latest'}"
    name = host.partition(":")[0]
    return (
        f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": failed to do request: '
        f'Head "{url}": dial tcp: lookup {name} on 10.0.0.10:53: no such host'
    )


def referenced(pod: Json) -> Iterator[str]:
    """The ConfigMaps that the pod must have before it can start."""
    for volume in pod["spec"].get("volumes", ()):
        if "configMap" in volume and not volume["configMap"].get("optional"):
            yield volume["configMap"]["name"]
    for container in pod["spec"]["containers"]:
        for entry in container.get("env", ()):
            reference = entry.get("valueFrom", {}).get("configMapKeyRef")
            if reference and not reference.get("optional"):
                yield reference["name"]


def mounted(pod: Json, config_maps: ConfigMaps) -> dict[str, dict[str, bytes]]:
    """The content of the pod's ConfigMap volumes: by volume, by path below its mount. Raises `MountError`."""
    volumes = {}
    for volume in pod["spec"].get("volumes", ()):
        if "configMap" in volume:
            volumes[volume["name"]] = _files(volume["name"], volume["configMap"], config_maps)
    return volumes


def _files(volume: str, source: Json, config_maps: ConfigMaps) -> dict[str, bytes]:
    config_map = config_maps(source["name"])
    if config_map is None:
        if source.get("optional"):
            return {}
        raise MountError(volume, f'configmap "{source["name"]}" not found')
    content = {key: value.encode() for key, value in config_map.get("data", {}).items()}
    content.update({key: base64.b64decode(value) for key, value in config_map.get("binaryData", {}).items()})
    if "items" not in source:
        return content
    chosen = {}
    for item in source["items"]:
        if item["key"] in content:
            chosen[item["path"]] = content[item["key"]]
        elif not source.get("optional"):
            raise MountError(volume, f"configmap references non-existent config key: {item['key']}")
    return chosen


def resolve(pod: Json, files: Mapping[str, Mapping[str, bytes]], config_maps: ConfigMaps) -> ContainerSpec:
    """What the runtime is asked for. `files` is what `mounted` gave. Raises `ContainerConfigError`."""
    metadata, spec = pod["metadata"], pod["spec"]
    container = spec["containers"][0]
    _check_user(pod, container)
    env = _environment(pod, container, config_maps)
    limits = container["resources"].get("limits", {})
    placed: dict[str, bytes] = {}
    scratch: dict[str, int | None] = {}
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        volume = volumes[mount["name"]]
        if "emptyDir" in volume:
            size = volume["emptyDir"].get("sizeLimit")
            scratch[mount["mountPath"]] = None if size is None else parse_quantity(size).value
        else:
            for path, content in files[mount["name"]].items():
                placed[join(mount["mountPath"], path)] = content
    command = [*container.get("command", ()), *container.get("args", ())]
    return ContainerSpec(
        namespace=metadata["namespace"],
        pod=metadata["name"],
        pod_uid=metadata["uid"],
        name=container["name"],
        command=tuple(expand(part, env) for part in command),
        env=env,
        working_dir=container.get("workingDir"),
        files=placed,
        scratch=scratch,
        memory_limit=parse_quantity(limits["memory"]).value if "memory" in limits else None,
        cpu_limit=parse_quantity(limits["cpu"]).milli / 1000 if "cpu" in limits else None,
        ephemeral_limit=_ephemeral(limits),
        run_as_user=_security(pod, container, "runAsUser"),
        run_as_group=_security(pod, container, "runAsGroup"),
    )


def _ephemeral(limits: Json) -> int | None:
    limit = limits.get("ephemeral-storage")
    return None if limit is None else parse_quantity(limit).value


def _security(pod: Json, container: Json, field: str) -> int | None:
    value: int | None = container.get("securityContext", {}).get(field, pod["spec"]["securityContext"].get(field))
    return value


def _check_user(pod: Json, container: Json) -> None:
    """https://kubernetes.io/docs/tasks/configure-pod-container/security-context/"""
    if not _security(pod, container, "runAsNonRoot"):
        return
    metadata = pod["metadata"]
    where = (
        f'(pod: "{metadata["name"]}_{metadata["namespace"]}({metadata["uid"]})", container: {container["name"]})'
    )
    user = _security(pod, container, "runAsUser")
    if user == 0:
        raise ContainerConfigError(f"container's runAsUser breaks non-root policy {where}")
    if user is None:
        raise ContainerConfigError(f"container has runAsNonRoot and image will run as root {where}")


def _environment(pod: Json, container: Json, config_maps: ConfigMaps) -> dict[str, str]:
    env: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        prefix = source.get("prefix", "")
        for key, value in _all_of(source, config_maps).items():
            env[prefix + key] = value
    for entry in container.get("env", ()):
        source = entry.get("valueFrom")
        if source is None:
            env[entry["name"]] = expand(entry.get("value", ""), env)
        else:
            found = _value_from(pod, source, config_maps)
            if found is not None:
                env[entry["name"]] = found
    return env


def _all_of(source: Json, config_maps: ConfigMaps) -> dict[str, str]:
    for kind, reference in (("configmap", source.get("configMapRef")), ("secret", source.get("secretRef"))):
        if reference is None:
            continue
        found = config_maps(reference["name"]) if kind == "configmap" else None
        if found is not None:
            return dict(found.get("data", {}))
        if not reference.get("optional"):
            raise ContainerConfigError(f'{kind} "{reference["name"]}" not found')
    return {}


def _value_from(pod: Json, source: Json, config_maps: ConfigMaps) -> str | None:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    if "secretKeyRef" in source:
        # There are no Secrets here.
        if source["secretKeyRef"].get("optional"):
            return None
        raise ContainerConfigError(f'secret "{source["secretKeyRef"]["name"]}" not found')
    reference = source["configMapKeyRef"]
    found = config_maps(reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        raise ContainerConfigError(f'configmap "{reference["name"]}" not found')
    # A key in binaryData is not found (recorded): only data can become a variable.
    value: str | None = found.get("data", {}).get(reference["key"])
    if value is None and not reference.get("optional"):
        where = f"{pod['metadata']['namespace']}/{reference['name']}"
        raise ContainerConfigError(f"couldn't find key {reference['key']} in ConfigMap {where}")
    return value


def _field(pod: Json, path: str) -> str:
    """The downward API's fields. https://kubernetes.io/docs/concepts/workloads/pods/downward-api/"""
    if match := _SUBSCRIPT.match(path):
        return str(pod["metadata"].get(match[1], {}).get(match[2], ""))
    fields = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": pod["spec"]["nodeName"],
        "spec.serviceAccountName": pod["spec"]["serviceAccountName"],
        "status.hostIP": HOST_IP,
        "status.hostIPs": HOST_IP,
        "status.podIP": pod["status"].get("podIP", ""),
        "status.podIPs": pod["status"].get("podIP", ""),
    }
    if path not in fields:
        raise ContainerConfigError(f"unsupported fieldPath: {path}")
    return str(fields[path])


def expand(text: str, env: Mapping[str, str]) -> str:
    """``$(X)`` becomes the variable's value if there is one, ``$$`` a dollar; all else stays."""

    def replaced(match: re.Match[str]) -> str:
        found = match[1]
        return "$" if found == "$" else env.get(found[1:-1], match[0])

    return _REFERENCE.sub(replaced, text)

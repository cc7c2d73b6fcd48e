"""Resolve the container of a pod for the runtime: environment, files, limits. Pure, given the ConfigMaps.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from posixpath import join

from ...kube.quantity import parse_quantity
from ..objects import Json, field
from ..runtimes.base import ContainerSpec

ConfigMaps = Callable[[str], "Json | None"]
"""Return a ConfigMap of the pod's namespace, or None."""

_REFERENCE = re.compile(r"\$(\$|\([^)]*\))")
_IMAGE = re.compile(
    r"^(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?$"
)


class ContainerConfigError(Exception):
    """The container cannot be created yet; the kubelet reports CreateContainerConfigError with this message."""


class MountError(Exception):
    """A volume cannot be mounted yet; the kubelet reports FailedMount."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {why}')


def image_error(image: str) -> str:
    """Return the error in the name of an image, or an empty string."""
    if _IMAGE.match(image):
        return ""
    why = f'couldn\'t parse image name "{image}": invalid reference format'
    return f'Failed to apply default image tag "{image}": {why}'


def pull_error(image: str) -> str:
    """Return why the image cannot be pulled, or an empty string. No registry under ``.invalid`` exists.

    https://www.rfc-editor.org/rfc/rfc2606#section-2
    """
    host = image.partition("/")[0].partition(":")[0]
    return unreachable_registry(image) if host.endswith(".invalid") else ""


def unreachable_registry(image: str) -> str:
    """Return the error of the container runtime for a registry whose name cannot be resolved."""
    host, _, rest = image.partition("/") if "/" in image else ("registry-1.docker.io", "", f"library/{image}")
    repository, _, tag = rest.partition(":")
    url = f"https://{host}/v2/{repository}/manifests/{tag or 'latest'}"
    name = host.partition(":")[0]
    return (
        f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": failed to do request: '
        f'Head "{url}": dial tcp: lookup {name} on 10.0.0.10:53: no such host'
    )


def config_map_names(pod: Json) -> Iterator[str]:
    """Yield the names of the ConfigMaps that the pod needs."""
    for volume in pod["spec"].get("volumes", ()):
        if "configMap" in volume:
            yield volume["configMap"]["name"]
    for container in pod["spec"]["containers"]:
        for entry in container.get("env", ()):
            if reference := entry.get("valueFrom", {}).get("configMapKeyRef"):
                yield reference["name"]


def volume_files(pod: Json, config_maps: ConfigMaps) -> dict[str, dict[str, bytes]]:
    """Return the files of the ConfigMap volumes, by volume and file name. Raises `MountError`."""
    return {
        volume["name"]: _files(volume["name"], volume["configMap"]["name"], config_maps)
        for volume in pod["spec"].get("volumes", ())
        if "configMap" in volume
    }


def _files(volume: str, name: str, config_maps: ConfigMaps) -> dict[str, bytes]:
    config_map = config_maps(name)
    if config_map is None:
        raise MountError(volume, f'configmap "{name}" not found')
    content = {key: value.encode() for key, value in config_map.get("data", {}).items()}
    content.update({key: base64.b64decode(value) for key, value in config_map.get("binaryData", {}).items()})
    return content


def resolve(
    pod: Json, container: Json, files: Mapping[str, Mapping[str, bytes]], config_maps: ConfigMaps
) -> ContainerSpec:
    """Return the container to start, with the files of `volume_files`. Raises `ContainerConfigError`."""
    metadata, spec = pod["metadata"], pod["spec"]
    _check_user(pod, container)
    env = _environment(pod, container, config_maps)
    limits = container["resources"].get("limits", {})
    mounted: dict[str, bytes] = {}
    scratch: dict[str, int | None] = {}
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    for mount in container.get("volumeMounts", ()):
        volume = volumes[mount["name"]]
        if "configMap" in volume:
            for path, content in files[mount["name"]].items():
                mounted[join(mount["mountPath"], path)] = content
        else:  # an emptyDir; a volume of another kind, which a policy can add, is empty as well
            size = volume.get("emptyDir", {}).get("sizeLimit")
            scratch[mount["mountPath"]] = None if size is None else parse_quantity(size).value
    command = [*container.get("command", ()), *container.get("args", ())]
    return ContainerSpec(
        namespace=metadata["namespace"],
        pod=metadata["name"],
        pod_uid=metadata["uid"],
        name=container["name"],
        command=tuple(expand(part, env) for part in command),
        env=env,
        stdin=container.get("stdin", False),
        working_dir=container.get("workingDir"),
        files=mounted,
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


def _security(pod: Json, container: Json, name: str) -> int | None:
    value: int | None = container.get("securityContext", {}).get(name, pod["spec"]["securityContext"].get(name))
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
    for entry in container.get("env", ()):
        source = entry.get("valueFrom")
        if source is None:
            value = expand(entry.get("value", ""), env)
        elif "configMapKeyRef" in source:
            value = _config_map_value(pod, source["configMapKeyRef"], config_maps)
        else:  # a policy can add other sources: fields of the pod have their value, the rest is empty
            value = str(field(pod, source.get("fieldRef", {}).get("fieldPath", "")))
        env[entry["name"]] = value
    return env


def _config_map_value(pod: Json, reference: Json, config_maps: ConfigMaps) -> str:
    config_map = config_maps(reference["name"])
    if config_map is None:
        raise ContainerConfigError(f'configmap "{reference["name"]}" not found')
    # Only keys in `data` can become variables, not those in `binaryData` (recorded).
    value: str | None = config_map.get("data", {}).get(reference["key"])
    if value is None:
        where = f"{pod['metadata']['namespace']}/{reference['name']}"
        raise ContainerConfigError(f"couldn't find key {reference['key']} in ConfigMap {where}")
    return value


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by the value of a known variable and ``$$`` by a dollar sign."""

    def value(match: re.Match[str]) -> str:
        reference = match[1]
        return "$" if reference == "$" else env.get(reference[1:-1], match[0])

    return _REFERENCE.sub(value, text)

"""A pod's way from its node to a container that can be started: volumes, sandbox, image, configuration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..apiserver.resources import PODS
from ..faults import BadImage, NoPodSandbox
from ..objects import Json
from ..runtimes.base import ContainerSpec
from .containers import (
    ContainerConfigError,
    MountError,
    image_error,
    mounted,
    pull_error,
    referenced,
    resolve,
    unreachable,
)
from .pod_status import waiting

if TYPE_CHECKING:
    from .kubelet import PodWorker

_LONGEST_MOUNT_RETRY = 122.0
_LONGEST_IMAGE_BACKOFF = 300.0


class PodDeleted(Exception):
    """The pod is being deleted; its worker has to end it."""


class PodRemoved(Exception):
    """The pod is not there any more; its worker has nothing left to do."""


class Starter:
    """Takes one pod to the point where its container can be started.

    Each obstacle is reported as the kubelet reports it, and tried again until it is gone.
    """

    def __init__(self, worker: PodWorker) -> None:
        self._worker = worker
        self._pace = worker.cluster.pace

    async def start(self) -> ContainerSpec:
        """Return what the runtime is to start. Raises `PodDeleted`, `PodRemoved`."""
        worker = self._worker
        await worker.pause(self._pace.accept)
        worker.report()
        await self._await_config_maps()
        files = await self._mount()
        await self._prepare()
        worker.view.sandbox = True
        worker.report()
        worker.view.pod_ip = worker.kubelet.address()
        await self._pull()
        spec = await self._configure(files)
        worker.tell("Normal", "Created", "Container created")
        await worker.pause(self._pace.start)
        return spec

    def _config_map(self, name: str) -> Json | None:
        return self._worker.kubelet.config_map(self._worker.key.namespace, name)

    async def _await_config_maps(self) -> None:
        """Give the client time: it creates the ConfigMap after the Job."""
        if self._pace.config_wait:
            for name in dict.fromkeys(referenced(self._worker.pod())):
                namespace = self._worker.key.namespace
                await self._worker.kubelet.await_config_map(namespace, name, self._pace.config_wait)

    async def _mount(self) -> dict[str, dict[str, bytes]]:
        worker, delay = self._worker, self._pace.mount_retry
        if worker.pod()["spec"].get("volumes"):
            await worker.pause(self._pace.mount)
        while True:
            try:
                return mounted(worker.pod(), self._config_map)
            except MountError as error:
                worker.tell("Warning", "FailedMount", str(error), of_container=False)
            await worker.pause(delay)
            delay = min(delay * 2, _LONGEST_MOUNT_RETRY)

    async def _prepare(self) -> None:
        """Make the pod's sandbox: its network, and under gVisor its kernel."""
        worker, key = self._worker, self._worker.key
        while True:
            await worker.pause(self._pace.sandbox)
            fault = worker.cluster.faults.first(NoPodSandbox, PODS.plural, key.namespace, key.name)
            if fault is None:
                return
            worker.tell("Warning", "FailedCreatePodSandBox", fault.message, of_container=False)
            await worker.pause(fault.retry)

    async def _pull(self) -> None:
        worker, delay = self._worker, self._pace.image_backoff
        image: str = worker.pod()["spec"]["containers"][0]["image"]
        if bad := image_error(image):
            worker.tell("Warning", "InspectFailed", bad)
            worker.view.state = waiting("InvalidImageName", bad)
            worker.report()
            await worker.pause(math.inf)
        while error := self._pull_error(image):
            worker.tell("Normal", "Pulling", f'Pulling image "{image}"')
            worker.tell("Warning", "Failed", f'Failed to pull image "{image}": {error}')
            worker.tell("Warning", "Failed", "Error: ErrImagePull")
            worker.view.state = waiting("ErrImagePull", error)
            worker.report()
            worker.tell("Normal", "BackOff", f'Back-off pulling image "{image}"')
            worker.tell("Warning", "Failed", "Error: ImagePullBackOff")
            await worker.pause(delay)
            worker.view.state = waiting(
                "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {error}'
            )
            worker.report()
            delay = min(delay * 2, _LONGEST_IMAGE_BACKOFF)
            await worker.pause(delay)
        present = f'Container image "{image}" already present on machine and can be accessed by the pod'
        worker.tell("Normal", "Pulled", present)

    def _pull_error(self, image: str) -> str:
        key = self._worker.key
        fault = self._worker.cluster.faults.first(BadImage, PODS.plural, key.namespace, key.name)
        if fault is not None:
            return fault.message or unreachable(image)
        return pull_error(image)

    async def _configure(self, files: dict[str, dict[str, bytes]]) -> ContainerSpec:
        worker = self._worker
        while True:
            try:
                return resolve(worker.pod(), files, self._config_map)
            except ContainerConfigError as error:
                message = str(error)
            worker.tell("Warning", "Failed", f"Error: {message}")
            worker.view.state = waiting("CreateContainerConfigError", message)
            worker.report()
            await worker.pause(self._pace.config_retry)

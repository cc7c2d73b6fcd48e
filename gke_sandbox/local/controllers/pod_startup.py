"""The startup of a pod on its node: volumes, sandbox, image and configuration, until its container can start."""

from __future__ import annotations

import functools
import math

from ..faults import BadImage, NoPodSandbox, RejectPod
from ..objects import Json
from ..runtimes.base import ContainerSpec
from .config_maps import ConfigMapReader
from .containers import (
    ContainerConfigError,
    MountError,
    config_map_names,
    image_error,
    pull_error,
    resolve,
    unreachable_registry,
    volume_files,
)
from .init_containers import InitContainers
from .pod_context import PodContext, PodRejected
from .pod_status import ContainerStatus, waiting

MAX_MOUNT_RETRY = 122.0
MAX_IMAGE_BACKOFF = 300.0


class PodStartup:
    """Prepares one pod. Each failure is reported as the kubelet reports it, and retried until it is gone."""

    def __init__(self, context: PodContext, config_maps: ConfigMapReader, pod_ip: str) -> None:
        self._context = context
        self._config_maps = config_maps
        self._pod_ip = pod_ip
        self._pace = context.pace
        self.init = InitContainers(context)

    async def run(self) -> ContainerSpec:
        """Return the container to start.

        Raises `PodRejected`, `InitContainerFailed`, `PodDeleted`, `PodRemoved`.
        """
        context = self._context
        await context.pause(self._pace.accept)
        self._accept()
        context.report()
        await self._wait_for_config_maps()
        files = await self._mount_volumes()
        await self._create_sandbox()
        context.status.sandbox = True
        context.report()
        context.status.pod_ip = self._pod_ip
        for container in context.pod()["spec"].get("initContainers", ()):
            status = context.status.init[container["name"]]
            await self.init.run(container, status, await self._prepare(container, status, files))
        return await self._prepare(context.pod()["spec"]["containers"][0], context.status, files)

    def _accept(self) -> None:
        context = self._context
        fault = context.cluster.faults.first(RejectPod, context.key)
        if fault is not None:
            raise PodRejected(fault.reason, fault.message)
        init = context.pod()["spec"].get("initContainers", ())
        if init:
            context.status.state = waiting("PodInitializing")
            context.status.init = {one["name"]: ContainerStatus(waiting("PodInitializing")) for one in init}

    async def _prepare(
        self, container: Json, status: ContainerStatus, files: dict[str, dict[str, bytes]]
    ) -> ContainerSpec:
        """Pull the image of a container, and return the container to start."""
        name = "" if status is self._context.status else container["name"]
        await self._pull_image(container["image"], status, name)
        spec = await self._resolve_container(container, status, name, files)
        self._context.record_event("Normal", "Created", "Container created", init=name)
        await self._context.pause(self._pace.start)
        return spec

    def _config_map(self, name: str) -> Json | None:
        return self._config_maps.get(self._context.key.namespace, name)

    async def _wait_for_config_maps(self) -> None:
        """Wait a moment for missing ConfigMaps: the client creates its ConfigMap after the Job."""
        if self._pace.config_wait:
            for name in dict.fromkeys(config_map_names(self._context.pod())):
                await self._config_maps.wait_for(self._context.key.namespace, name, self._pace.config_wait)

    async def _mount_volumes(self) -> dict[str, dict[str, bytes]]:
        context, delay = self._context, self._pace.mount_retry
        if context.pod()["spec"].get("volumes"):
            await context.pause(self._pace.mount)
        while True:
            try:
                return volume_files(context.pod(), self._config_map)
            except MountError as error:
                context.record_event("Warning", "FailedMount", str(error), of_container=False)
            await context.pause(delay)
            delay = min(delay * 2, MAX_MOUNT_RETRY)

    async def _create_sandbox(self) -> None:
        """Create the pod sandbox: its network, and under gVisor its kernel."""
        context = self._context
        while True:
            await context.pause(self._pace.sandbox)
            fault = context.cluster.faults.first(NoPodSandbox, context.key)
            if fault is None:
                return
            context.record_event("Warning", "FailedCreatePodSandBox", fault.message, of_container=False)
            await context.pause(fault.retry)

    async def _pull_image(self, image: str, status: ContainerStatus, init: str) -> None:
        context, delay = self._context, self._pace.image_backoff
        record = functools.partial(context.record_event, init=init)
        if error := image_error(image):
            record("Warning", "InspectFailed", error)
            self._report_waiting(status, "InvalidImageName", error)
            await context.pause(math.inf)
        while error := self._pull_error(image, init):
            record("Normal", "Pulling", f'Pulling image "{image}"')
            record("Warning", "Failed", f'Failed to pull image "{image}": {error}')
            record("Warning", "Failed", "Error: ErrImagePull")
            self._report_waiting(status, "ErrImagePull", error)
            record("Normal", "BackOff", f'Back-off pulling image "{image}"')
            record("Warning", "Failed", "Error: ImagePullBackOff")
            await context.pause(delay)
            back_off = f'Back-off pulling image "{image}": ErrImagePull: {error}'
            self._report_waiting(status, "ImagePullBackOff", back_off)
            delay = min(delay * 2, MAX_IMAGE_BACKOFF)
            await context.pause(delay)
        present = f'Container image "{image}" already present on machine and can be accessed by the pod'
        record("Normal", "Pulled", present)

    def _pull_error(self, image: str, init: str) -> str:
        """`BadImage` is about the program's image; those of init containers are bad by their name."""
        fault = None
        if not init:
            fault = self._context.cluster.faults.first(BadImage, self._context.key)
        if fault is not None:
            return fault.message or unreachable_registry(image)
        return pull_error(image)

    async def _resolve_container(
        self, container: Json, status: ContainerStatus, init: str, files: dict[str, dict[str, bytes]]
    ) -> ContainerSpec:
        while True:
            try:
                return resolve(self._context.pod(), container, files, self._config_map)
            except ContainerConfigError as error:
                message = str(error)
            self._context.record_event("Warning", "Failed", f"Error: {message}", init=init)
            self._report_waiting(status, "CreateContainerConfigError", message)
            await self._context.pause(self._pace.config_retry)

    def _report_waiting(self, status: ContainerStatus, reason: str, message: str) -> None:
        status.state = waiting(reason, message)
        self._context.report()

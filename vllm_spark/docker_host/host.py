"""Reads the Docker host's state: its containers, its memory, its ports.

Everything goes through the daemon, which may be on another machine than Pulumi.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from vllm_spark.config.sections import Endpoint
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import Devices, Gpu
from vllm_spark.deployment.host_memory import Meminfo, memory_held, read_meminfo
from vllm_spark.deployment.tenants import (
    CHECK_LABEL,
    Identity,
    Tenant,
    devices_of,
    looks_like_a_server,
    tenant,
)
from vllm_spark.docker_host.connection import connect
from vllm_spark.docker_host.one_shot import OneShot
from vllm_spark.docker_host.ports import port_problem
from vllm_spark.memory.limits import GIB
from vllm_spark.problems import Problem, Unmodelled

MEMINFO = Path("/proc/meminfo")
PRINT_SECONDS = 60.0
"""The limit of a container that only prints something."""

_AS_IN_IMAGES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The processor's name in an image, by its name in the daemon's answers."""


class DockerHost:
    """The host of the Docker daemon, as seen by one server; `name` is that server's container.

    `image` is an image on that host; a container of it reads the memory of a remote host.
    Raises DockerUnavailable, and docker-py's exceptions.
    """

    def __init__(self, name: str, image: str) -> None:
        self.client = connect()
        self._name = name
        self._image = image
        self.ours = self._inspected(name)
        """The container of our name, running or not; None if there is none."""

    def _inspected(self, container: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.client.api.inspect_container(container)
        except NotFound:
            return None  # ended in the meantime
        return found

    def memory(self) -> Meminfo:
        """The host's memory now. ValueError if it is not a Linux that reports it, or times out.

        Interrupted after Ctrl-C.
        """
        text = self._meminfo_here()
        if text is None:
            # /proc/meminfo in a container shows the host's memory.
            shot = OneShot(
                self._image,
                "print(open('/proc/meminfo').read())",
                (),
                labels={CHECK_LABEL: "yes"},
            )
            try:
                text = shot.run(self.client, limit_seconds=PRINT_SECONDS)
            except TimeoutError as error:
                raise ValueError(f"no answer within {PRINT_SECONDS:.0f} s") from error
        return read_meminfo(text)

    def architecture_problem(self) -> Problem | None:
        """An image for another processor; None if its programs run, perhaps by emulation.

        Docker starts a container of such an image, which ends at once without an answer.
        Interrupted after Ctrl-C.
        """
        api: Any = self.client.api
        try:
            here = _AS_IN_IMAGES.get(api.info()["Architecture"])
            built = api.inspect_image(self._image)["Architecture"]
        except APIError:
            return None  # not known
        if here is None or built == here:
            return None
        said = ""
        shot = OneShot(self._image, "print('runs')", (), labels={CHECK_LABEL: "yes"})
        try:
            if shot.run(self.client, limit_seconds=PRINT_SECONDS) == "runs":
                return None
        except TimeoutError:
            return None  # not known
        except APIError as error:
            said = f" ({error.explanation})"
        return Problem(
            "vllm-spark:image.name",
            f"{self._image} is built for {built}, and this host is {here}: "
            f"its programs do not run here{said}",
            f"`docker pull --platform linux/{here} {self._image}` where the tag has that too "
            f"(`docker manifest inspect` lists it); if not, name an image for {here}",
        )

    def _meminfo_here(self) -> str | None:
        """This machine's memory, if the daemon runs here: then both see the same memory."""
        try:
            text = MEMINFO.read_text()
            seen = read_meminfo(text).total_gib
        except (OSError, ValueError):
            return None
        return text if abs(seen - self.client.info()["MemTotal"] / GIB) < 0.001 else None

    def tenants(
        self,
        settings: Settings,
        identity: Identity,
        gpus: Sequence[Gpu] = (),
        holders: frozenset[int] | None = None,
    ) -> list[Tenant]:
        """The servers that have one of our GPUs, except those that may share it.

        A server may share it if it is in `gpu.alongside` or belongs to the same program. `gpus` map
        UUIDs to indices. `holders` are the processes on a GPU; a container without any is no
        server. Each call asks Docker again, so containers that have ended do not appear.
        """
        wanted = Devices.of_config(settings.container.gpus)
        found = [
            tenant(other)
            for other in self._running()
            if wanted.shares_a_gpu_with(devices_of(other), gpus)
            and not identity.declared_beside(other)
            and (looks_like_a_server(other) or self._holds_a_gpu(other, holders))
        ]
        return [other for other in found if other.name not in settings.gpu.alongside]

    def _running(self) -> list[dict[str, Any]]:
        """The inspections of all running containers except ours."""
        listed = (self._inspected(one["Id"]) for one in self.client.api.containers())
        return [
            found
            for found in listed
            if found is not None and found["Name"].removeprefix("/") != self._name
        ]

    def _holds_a_gpu(self, inspected: dict[str, Any], holders: frozenset[int] | None) -> bool:
        """Whether a process of the container uses a GPU; True if that is not known."""
        if holders is None:
            return True
        try:
            top = self.client.api.top(inspected["Id"])
        except (DockerException, RequestException):
            return True
        column = top["Titles"].index("PID")
        return any(int(process[column]) in holders for process in top["Processes"])

    def returned(self, settings: Settings, stopped: list[Tenant]) -> dict[str, float | Unmodelled]:
        """GiB that our old container, and containers stopped for ours, will free."""
        names = {other.name for other in stopped}
        leaving = [other for other in self._running() if tenant(other).name in names]
        if self.ours is not None and self.ours["State"]["Running"]:
            leaving.append(self.ours)
        return {tenant(one).name: self._held(one, settings) for one in leaving}

    def _held(self, inspected: dict[str, Any], settings: Settings) -> float | Unmodelled:
        if inspected["State"]["Restarting"]:
            return 0.0  # between two starts: no process holds memory
        found = tenant(inspected)
        if devices_of(inspected) and "cpu" not in found.image:
            return memory_held(found.command, settings)
        try:
            seen = self.client.api.stats(found.name, stream=False)["memory_stats"]
        except DockerException as error:
            return Unmodelled(str(error))
        stats = seen.get("stats", {})
        # Page cache already counts as available. `docker stats` subtracts it too; cgroup 1, then 2.
        cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
        return max(0.0, float(seen.get("usage", 0) - cached) / GIB)

    def port_problem(self, endpoint: Endpoint, stopped: list[Tenant]) -> Problem | None:
        """What else holds the server's port; containers in `stopped` do not count."""
        leaving = [self._name, *(other.name for other in stopped)]
        here = self._meminfo_here() is not None
        inspected = [*self._running(), *([self.ours] if self.ours is not None else [])]
        listed = self.client.api.containers()
        return port_problem(listed, inspected, endpoint, leaving, try_here=here)

"""What the Docker host says of itself: its containers, its memory, its ports.

All through the daemon, which may be on another machine than the one that runs Pulumi.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

from docker.errors import DockerException, NotFound

from vllm_spark.config.sections import Endpoint
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.host_memory import Meminfo, memory_held, read_meminfo
from vllm_spark.deployment.tenants import Identity, Tenant, has_gpu, tenant
from vllm_spark.docker_host.connection import connect
from vllm_spark.memory.limits import GIB
from vllm_spark.problems import Problem, Unmodelled

MEMINFO = Path("/proc/meminfo")


class DockerHost:
    """The host of the daemon, asked about all but the container `name`, which is ours.

    `image` is one that the host has; a container of it reads the memory of a remote host.
    Raises DockerUnavailable, and what docker-py raises.
    """

    def __init__(self, name: str, image: str) -> None:
        self.client = connect()
        self._name = name
        self._image = image
        self.ours = self._inspected(name)
        """The container of our name, running or not; None if there is none."""
        self._others = [
            found
            for listed in self.client.api.containers()
            if (found := self._inspected(listed["Id"])) is not None
            and found["Name"].removeprefix("/") != name
        ]

    def _inspected(self, container: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.client.api.inspect_container(container)
        except NotFound:
            return None  # ended meanwhile
        return found

    def memory(self) -> Meminfo:
        """Its memory now. ValueError if the host is no Linux that says so."""
        text = self._meminfo_here()
        if text is None:
            # A container's /proc/meminfo is its host's.
            text = self.client.containers.run(
                self._image, ["/proc/meminfo"], entrypoint="cat", remove=True, network_mode="none"
            ).decode()
        return read_meminfo(text)

    def _meminfo_here(self) -> str | None:
        """This machine's, if the daemon runs on it: then both see the same memory."""
        try:
            text = MEMINFO.read_text()
            seen = read_meminfo(text).total_gib
        except (OSError, ValueError):
            return None
        return text if abs(seen - self.client.info()["MemTotal"] / GIB) < 0.001 else None

    def tenants(self, settings: Settings, identity: Identity) -> list[Tenant]:
        """The other containers that were given a GPU, but for those that may have it.

        Those are the ones in `gpu.alongside`, and the other servers of the same program.
        """
        if settings.container.gpus == "none":
            return []
        found = [
            tenant(other)
            for other in self._others
            if has_gpu(other) and not identity.declared_beside(other)
        ]
        return [other for other in found if other.name not in settings.gpu.alongside]

    def returned(self, settings: Settings, stopped: list[Tenant]) -> dict[str, float | Unmodelled]:
        """GiB that our old container, and those which are stopped for us, will give back."""
        names = {other.name for other in stopped}
        leaving = [other for other in self._others if tenant(other).name in names]
        if self.ours is not None and self.ours["State"]["Running"]:
            leaving.append(self.ours)
        return {tenant(one).name: self._held(one, settings) for one in leaving}

    def _held(self, inspected: dict[str, Any], settings: Settings) -> float | Unmodelled:
        found = tenant(inspected)
        if has_gpu(inspected) and "cpu" not in found.image:
            return memory_held(found.command, settings)
        try:
            seen = self.client.api.stats(found.name, stream=False)["memory_stats"]
        except DockerException as error:
            return Unmodelled(str(error))
        stats = seen.get("stats", {})
        # Page cache is available already. Docker's own `stats` subtracts the same; by cgroup 1, 2.
        cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
        return max(0.0, float(seen.get("usage", 0) - cached) / GIB)

    def port_problem(self, endpoint: Endpoint, stopped: list[Tenant]) -> Problem | None:
        """Who else holds the server's port; those who are `stopped` first do not count."""
        bind, port = str(endpoint.bind), endpoint.port
        fix = "or give another port: pulumi config set --path vllm-spark:endpoint.port N"
        leaving = [self._name, *(other.name for other in stopped)]
        for container in self.client.api.containers():
            holder = container["Names"][0].removeprefix("/")
            held = {published.get("PublicPort") for published in container["Ports"]}
            if port in held and holder not in leaving:
                return Problem(
                    f"port {port}",
                    f"is held by container {holder} ({container['Image']})",
                    f"docker stop {holder}, {fix}",
                )
            if port in held:
                return None
        if self._meminfo_here() is None:
            return None  # the ports of another machine cannot be tried from here
        return _trial(bind, port, fix)


def _trial(bind: str, port: int, fix: str) -> Problem | None:
    """Listen there for a moment."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as trial:
        # Without it, connections that just closed would count as a holder.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((bind, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return Problem(
                    f"port {port} on {bind}",
                    "is held by another process",
                    f"find it with `ss -ltnp 'sport = :{port}'` and stop it, {fix}",
                )
            if error.errno == errno.EACCES:
                return None  # not for us, but Docker's daemon may
            return Problem(
                f"{bind}:{port}",
                f"this host cannot listen there: {error.strerror}",
                "vllm-spark:endpoint.bind must be an address of this host",
            )
    return None

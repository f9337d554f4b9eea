"""Runs one command in a container of an image, and always removes the container.

The image check, the fetch of weights and the listing of a cache work this way: they need vLLM, the
hub's client or the mounted cache, and the daemon may be on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import docker
from docker.errors import APIError
from docker.types import DeviceRequest

from vllm_spark.deployment.gpus import cdi_names
from vllm_spark.docker_host.connection import UNHEARD
from vllm_spark.docker_host.interruption import still_asking, until_interrupted

GONE_SECONDS = 10
REMOVE_SECONDS = 5.0
"""How long the removal may take after Ctrl-C. On a busy host Docker needs more than a second."""


@dataclass(frozen=True)
class OneShot:
    """A Python program for an image. `volumes` are source, path and mode (`rw` or `ro`).

    `gpus` is None, "all" or device numbers; `gpu_access` is that of the config. `labels`
    distinguish the container from servers.
    """

    image: str
    program: str
    arguments: Sequence[str]
    labels: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[tuple[str, str, str]] = ()
    gpus: str | list[int] | None = None
    gpu_access: str = "gpus"
    network: bool = False
    host_pids: bool = False
    """Whether it sees the host's processes; nvidia-smi needs that to list those on a GPU."""
    host_access: Mapping[str, Any] = field(default_factory=dict)
    """What it gets of the host, as arguments of docker-py: devices, mounts, capabilities."""

    def run(
        self,
        client: docker.DockerClient,
        *,
        limit_seconds: float,
        report: Callable[[str], None] = lambda _line: None,
    ) -> str:
        """Run it; returns its standard output, passes each line of standard error to `report`.

        Interrupted after Ctrl-C, TimeoutError after the limit, APIError if the container cannot be
        started.
        """
        container: Any = client.containers.create(
            self.image,
            ["-c", self.program, *self.arguments],
            entrypoint="python3",
            environment=dict(self.environment),
            volumes=[":".join(volume) for volume in self.volumes],
            pid_mode="host" if self.host_pids else None,
            network_mode="bridge" if self.network else "none",
            labels=dict(self.labels),
            device_requests=None if self.gpus is None else [_request(self.gpus, self.gpu_access)],
            **self.host_access,
            # The daemon removes it, because it outlives a Pulumi that is killed.
            auto_remove=True,
        )
        try:
            said: list[bytes] = []
            output = container.attach(stream=True, demux=True)
            container.start()
            # docker-py waits for a silent stream without end, despite its timeout.
            until_interrupted(lambda: _read(output, said, report), limit=limit_seconds)
        except BaseException:
            with suppress(*UNHEARD), still_asking(REMOVE_SECONDS):  # the first error matters more
                _remove(container)
            raise
        with still_asking(REMOVE_SECONDS):
            _remove(container)
        return b"".join(said).decode(errors="replace").rstrip("\n")


def _remove(container: Any) -> None:
    with suppress(APIError):  # it is gone, or is being removed
        container.remove(force=True)
    with suppress(*UNHEARD):  # until then its volumes cannot be removed
        container.wait(condition="removed", timeout=GONE_SECONDS)


def _read(output: Any, said: list[bytes], report: Callable[[str], None]) -> None:
    """Collect standard output; pass each whole line of standard error to `report`."""
    rest = b""
    with suppress(OSError, *UNHEARD):  # without Docker, the next request fails too
        for out, error in output:
            said.append(out or b"")
            *lines, rest = (rest + (error or b"")).split(b"\n")
            for line in lines:
                report(line.decode(errors="replace"))
    if rest:
        report(rest.decode(errors="replace"))


def _request(gpus: str | list[int], access: str) -> DeviceRequest:
    if access == "cdi":
        return DeviceRequest(driver="cdi", device_ids=cdi_names(gpus))
    if isinstance(gpus, list):
        return DeviceRequest(device_ids=[str(gpu) for gpu in gpus], capabilities=[["gpu"]])
    return DeviceRequest(count=-1, capabilities=[["gpu"]])

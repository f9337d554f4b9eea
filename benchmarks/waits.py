"""One start of the fake server, and two ways to wait: the health gate and `compose up --wait`.

Both get the same image, command, environment and restart policy. The Docker daemon's timestamps say
when the server became ready or died; its clock is this machine's.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import docker
import grpc  # type: ignore[import-untyped]
import yaml
from docker.models.containers import Container

from offline.bootstrap.compose import ensure_compose
from tests.e2e.gate_process import GateProcess
from tests.e2e.project import FAKE_IMAGE
from tests.fake_server import READY

MODEL = "model"
HEALTHCHECK = {
    "test": [
        "CMD", "python3", "-c",
        "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=4)",
    ],
    "interval": "5s",
    "timeout": "5s",
    "retries": 3,
    "start_period": "30s",
}  # fmt: skip
"""The usual healthcheck, with a short start period: real models need ten minutes or more."""

PATIENCE_SECONDS = 30
"""The gate's `stallSeconds`, equal to that start period; the default is 900."""

LONGEST_SECONDS = 240
"""The time limit of both."""


@dataclass(frozen=True)
class Start:
    """A start: switches of the fake server (without `FAKE_`), and the restart policy."""

    switches: Mapping[str, str]
    restart: Literal["no", "unless-stopped"] = "no"

    @property
    def environment(self) -> dict[str, str]:
        """The container's variables."""
        return {f"FAKE_{name.upper()}": value for name, value in self.switches.items()}


@dataclass(frozen=True)
class Waited:
    """How a wait ended: whether successfully, with which message, and when (Unix time)."""

    container: Container
    good: bool
    message: str
    ended: float = field(default_factory=time.time)

    def after_logged(self, text: str = READY) -> float:
        """Seconds from the log line with `text`; by default, the line of a server that listens."""
        log = self.container.logs(timestamps=True).decode().splitlines()
        line = next(line for line in log if text in line)
        return self.ended - datetime.fromisoformat(line.split()[0]).timestamp()

    def after_death(self) -> float:
        """Seconds from the first exit of the container's process."""
        created = datetime.fromisoformat(self.container.attrs["Created"])
        events = docker.from_env().api.events(
            since=int(created.timestamp()),
            until=int(time.time()) + 1,
            filters={"container": self.container.id, "event": "die"},
            decode=True,
        )
        return float(self.ended - next(iter(events))["timeNano"] / 1e9)


@contextmanager
def by_gate(gate: GateProcess, start: Start) -> Iterator[Waited]:
    """Wait with the health gate, in its provider's process as Pulumi runs it."""
    # docker-py's stubs lack `unless-stopped`.
    container: Container = docker.from_env().containers.run(  # type: ignore[call-overload]
        FAKE_IMAGE,
        [MODEL],
        environment=start.environment,
        restart_policy={"Name": start.restart},
        ports={"8000/tcp": ("127.0.0.1", 0)},
        detach=True,
    )
    try:
        try:
            gate.create(gate_properties(container))
            waited = Waited(container, True, "")
        except grpc.RpcError as error:
            noticed = gate.said("does not serve")
            waited = Waited(container, False, _cause(error.details()), noticed)
        yield waited
    finally:
        container.remove(force=True)


def gate_properties(container: Container, **others: str) -> dict[str, Any]:
    """The inputs of a health gate for a container that has just started."""
    container.reload()
    published = container.ports.get("8000/tcp")
    port = published[0]["HostPort"] if published else "9"  # none if the container has ended
    return {
        "containerId": container.id,
        "containerName": container.name,
        "url": f"http://127.0.0.1:{port}/v1",
        "model": MODEL,
        "timeoutSeconds": str(LONGEST_SECONDS),
        "stallSeconds": str(PATIENCE_SECONDS),
        **others,
    }


def _cause(message: str) -> str:
    return next(line.split("cause: ")[1] for line in message.splitlines() if "cause: " in line)


@contextmanager
def by_compose(start: Start) -> Iterator[Waited]:
    """Wait with `docker compose up --wait`."""
    service = {
        "image": FAKE_IMAGE,
        "command": [MODEL],
        "environment": start.environment,
        "restart": start.restart,
        "ports": ["127.0.0.1::8000"],
        "network_mode": "bridge",
        "healthcheck": HEALTHCHECK,
    }
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        file = Path(directory) / "compose.yaml"
        file.write_text(yaml.safe_dump({"services": {"server": service}}))
        compose = [*ensure_compose(), "--progress", "plain", "--file", str(file)]
        try:
            ended = subprocess.run(
                [*compose, "up", "--detach", "--wait", "--wait-timeout", str(LONGEST_SECONDS)],
                capture_output=True,
                text=True,
                check=False,
            )
            at = time.time()
            listed = subprocess.check_output([*compose, "ps", "--all", "--quiet"], text=True)
            container = docker.from_env().containers.get(listed.strip())
            last = ended.stderr.strip().splitlines()[-1].strip()
            yield Waited(container, ended.returncode == 0, last, at)
        finally:
            subprocess.run([*compose, "down", "--timeout", "0"], capture_output=True, check=True)

"""Started plugins, and an engine, an image and containers to try them on."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offline.plugins import write_plugin_dir
from tests.e2e.project import free_port
from tests.offline.plugin_client import CONTAINER, IMAGE, OURS, VOLUME, Plugin, Start
from vllm_spark.docker_host.connection import connect

SHELL = f"{OURS}-shell:latest"


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """A function that starts a plugin for one resource type; all end with the session."""
    started: list[Plugin] = []

    def start(type: str, config: dict[str, Any] | None = None) -> Plugin:
        name: Any = type.partition(":")[0]
        directory = tmp_path_factory.mktemp(name)
        write_plugin_dir(directory, name, "1.2.3", Path(sys.executable))
        started.append(Plugin(directory / f"pulumi-resource-{name}", type, config))
        return started[-1]

    yield start
    for plugin in started:
        plugin.close()


@pytest.fixture(scope="session")
def daemon() -> Iterator[Any]:
    """The Docker daemon, swept of what these tests make."""
    client: Any = connect().api
    yield client
    for container in client.containers(all=True, filters={"name": OURS}):
        client.remove_container(container["Id"], force=True, v=True)
    for volume in client.volumes(filters={"name": OURS})["Volumes"] or ():
        client.remove_volume(volume["Name"])
    for image in client.images(f"{OURS}-*"):
        client.remove_image(image["Id"], force=True)


@pytest.fixture(scope="session")
def image(daemon: Any) -> str:
    """The smallest image that runs a shell: this machine's own, with the libraries it needs."""
    files = {"/bin/sh", "/bin/sleep"}
    for program in sorted(files):
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        files.update(word for word in libraries.stdout.split() if word.startswith("/"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for file in files:
            tar.add(file)
    daemon.import_image_from_data(buffer.getvalue(), *SHELL.split(":"))
    return SHELL


@pytest.fixture(scope="module")
def containers(start: Start) -> Plugin:
    return start(CONTAINER)


@pytest.fixture(scope="module")
def images(start: Start) -> Plugin:
    return start(IMAGE)


@pytest.fixture(scope="module")
def volumes(start: Start) -> Plugin:
    return start(VOLUME)


@pytest.fixture
def server(image: str, daemon: Any) -> Iterator[dict[str, Any]]:
    """What the program asks for, on a small scale. Removed afterwards, whatever became of it."""
    name = f"{OURS}-server"
    yield {
        "name": name,
        "image": image,
        "command": ["sleep", "600"],
        "envs": ["A=b"],
        "labels": [{"label": "stack", "value": "test"}],
        "ports": [{"internal": 8000, "external": free_port(), "ip": "127.0.0.1"}],
        "volumes": [{"volumeName": f"{OURS}-cache", "containerPath": "/cache"}],
        "ulimits": [{"name": "nofile", "soft": 512, "hard": 1024}],
        "ipcMode": "host",
        "networkMode": "bridge",
        "restart": "unless-stopped",
    }
    for container in daemon.containers(all=True, filters={"name": name}):
        daemon.remove_container(container["Id"], force=True, v=True)

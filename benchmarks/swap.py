"""The downtime when model and image change, as a client sees it, on a slow network.

Registry and hub send a few MB per second, and the server takes five seconds to load. So the result
shows the order of the steps: what happens before the old server stops, and what after.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import docker
import requests
import yaml
from docker.errors import ImageNotFound

from benchmarks import small_image
from benchmarks.report import spread, table
from offline.bootstrap.compose import ensure_compose
from offline.bootstrap.vllm_image import IMAGE
from tests.e2e.project import ROOT, Project
from tests.offline.registry import image, registry
from vllm_spark.deployment.serving import CACHE_PATH

RUNS = 5
MIB = 1 << 20
LAYER, WEIGHTS, RATE = 30 * MIB, 40 * MIB, 5 * MIB
"""Bytes of the image's own layer, bytes of the weights, bytes per second of registry and hub."""

LOAD = "5"
"""Seconds that the fake server takes to load."""

TICK = 0.1
OLD, NEW = "benchmark/old", "benchmark/new"
TAGS = {OLD: "v0.32.0-old", NEW: "v0.32.0-new"}
PATIENCE_SECONDS = 120
RESTART = "`docker restart` of the new one: stop and load, nothing else"


@dataclass(frozen=True)
class Network:
    """The addresses of registry and hub, and the volume for the models."""

    registry: str
    hub: str
    volume: str

    @property
    def environment(self) -> dict[str, str]:
        """The server's variables: the hub's address, and the fake server's load time."""
        return {"HF_ENDPOINT": self.hub, "FAKE_LOAD": LOAD}

    def image(self, model: str) -> str:
        """The image that serves this model."""
        return f"{self.registry}/vllm-openai-cpu:{TAGS[model]}"

    def forget_new(self) -> None:
        """Remove the new image and model, so that both are downloaded again."""
        client = docker.from_env()
        with suppress(ImageNotFound):
            client.images.remove(self.image(NEW), force=True)
        client.containers.run(
            IMAGE, ["-rf", f"/cache/models--{NEW.replace('/', '--')}"], entrypoint="rm",
            volumes=[f"{self.volume}:/cache"], remove=True,
        )  # fmt: skip


class Client(threading.Thread):
    """Requests a token ten times a second, and records when which model answered."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{port}/v1/completions"
        self._over = threading.Event()
        self._answers: list[tuple[float, str]] = []

    def run(self) -> None:
        """Send requests until `downtime` is called."""
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + TICK, time.monotonic())
            with suppress(requests.RequestException, ValueError):
                answer = requests.post(self._url, json={"max_tokens": 1}, timeout=5)
                if answer.status_code == 200:
                    self._answers.append((time.monotonic(), answer.json()["model"]))

    def next_answer(self, model: str) -> None:
        """Wait for this model's next answer. TimeoutError if there is none."""
        now = time.monotonic()
        while not any(at > now and answered == model for at, answered in self._answers[-1:]):
            if time.monotonic() > now + PATIENCE_SECONDS:
                raise TimeoutError(f"{model} does not answer")
            time.sleep(TICK / 10)

    def downtime(self) -> float:
        """Stop sending; return the longest time between two answers, in seconds."""
        self._over.set()
        self.join()
        times = [moment for moment, _ in self._answers]
        return max(later - earlier for earlier, later in pairwise(times))


class Compose:
    """The same server in a compose file, as in the compose guide."""

    def __init__(self, directory: Path, port: int, network: Network) -> None:
        directory.mkdir()
        self._file = directory / "compose.yaml"
        self._port = port
        self._network = network
        self.change(OLD)

    def __call__(self, *arguments: str) -> None:
        """Run docker compose."""
        command = [*ensure_compose(), "--file", str(self._file), *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def change(self, model: str) -> None:
        """Write this model and its image into the file."""
        network = self._network
        server = {
            "image": network.image(model),
            "command": [model],
            "restart": "unless-stopped",
            "ports": [f"127.0.0.1:{self._port}:8000"],
            "environment": {**network.environment, "HF_HUB_CACHE": CACHE_PATH},
            "volumes": [f"{network.volume}:{CACHE_PATH}"],
            "network_mode": "bridge",
        }
        volumes = {network.volume: {"external": True}}
        content = {"services": {"vllm": server}, "volumes": volumes}
        self._file.write_text(yaml.safe_dump(content))

    def stop_change_up(self) -> None:
        """Change the model as the compose guide does."""
        self("stop")
        self.change(NEW)
        self("up", "--detach")

    def change_pull_up(self) -> None:
        """Pull the image first. compose has no way to download the weights first."""
        self.change(NEW)
        self("pull")
        self("up", "--detach")


def measure(runs: int) -> str:
    """Measure each way `runs` times, in turn."""
    client = docker.from_env()
    seen: dict[str, list[tuple[float, float]]] = {}

    def note(way: str, before: str, change: Callable[[], None]) -> None:
        seen.setdefault(way, []).append(_downtime(project.port, before, change))

    with _network() as network, tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        place = Path(directory) / "project"
        place.mkdir()
        project = Project(place, "benchmark")
        compose = Compose(Path(directory) / "compose", project.port, network)
        try:
            for _ in range(runs):
                _deploy(project, network, OLD)
                network.forget_new()
                note("`pulumi up`", OLD, lambda: _deploy(project, network, NEW))
                server = client.containers.get(project.container)
                note(RESTART, NEW, server.restart)
                server.remove(force=True)
                for way, change in (
                    ("`docker compose stop`, change, `up`", compose.stop_change_up),
                    ("change, `docker compose pull`, `up`", compose.change_pull_up),
                ):
                    compose.change(OLD)
                    compose("up", "--detach")
                    network.forget_new()
                    note(way, OLD, change)
                    compose("down", "--timeout", "0")
        finally:
            compose("down", "--timeout", "0")
            project.pulumi("destroy", "--yes")
    rows = [
        [way, spread([down for down, _ in pairs], 1), spread([took for _, took in pairs], 1)]
        for way, pairs in seen.items()
    ]
    return table([f"way, {runs} runs each", "downtime, s", "the command itself, s"], rows)


def _downtime(port: int, before: str, change: Callable[[], None]) -> tuple[float, float]:
    """Seconds without an answer, and seconds until `change` returned."""
    client = Client(port)
    client.start()
    client.next_answer(before)
    began = time.monotonic()
    change()
    took = time.monotonic() - began
    client.next_answer(NEW)
    return client.downtime(), took


def _deploy(project: Project, network: Network, model: str) -> None:
    project.configure(
        model={"id": model},
        image={"name": network.image(model)},
        cache={"volume": network.volume},
        container={"gpus": "none", "name": project.container, "environment": {
            **network.environment, "VLLM_CPU_KVCACHE_SPACE": "1"}},
    )  # fmt: skip
    up = project.up()
    if up.code != 0:
        raise RuntimeError(up.output)


@contextmanager
def _network() -> Iterator[Network]:
    """A slow registry with two images, a slow hub with two models, and an empty volume."""
    base = small_image.layer()
    content: dict[str, bytes] = {}
    for tag in TAGS.values():
        content |= image(tag, [base, _ballast(LAYER)], small_image.CONFIG)
    daemon = docker.from_env()
    volume = daemon.volumes.create(f"vllm-spark-benchmark-{os.getpid()}")
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as models,
        registry(content, login=None, rate=RATE) as address,
    ):
        for model in (OLD, NEW):
            _write_model(Path(models) / model)
        hub = daemon.containers.run(
            IMAGE, ["-u", "/local_hub.py", "/hub"], entrypoint="python3",
            environment={"HUB_RATE": str(RATE)},
            volumes=[f"{ROOT}/tests/local_hub.py:/local_hub.py:ro", f"{models}:/hub:ro"],
            detach=True,
        )  # fmt: skip
        try:
            next(line for line in hub.logs(stream=True) if b"listens" in line)
            hub.reload()
            place = hub.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            yield Network(address, f"http://{place}:8080", str(volume.name))
        finally:
            hub.remove(force=True)
            volume.remove(force=True)
            for tag in TAGS.values():
                with suppress(ImageNotFound):
                    daemon.images.remove(f"{address}/vllm-openai-cpu:{tag}", force=True)


def _ballast(size: int) -> bytes:
    """A layer of `size` random bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("ballast")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return buffer.getvalue()


def _write_model(folder: Path) -> None:
    """Write a model's files: enough to pass every check of the fetch."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    tensor = {"dtype": "U8", "shape": [WEIGHTS], "data_offsets": [0, WEIGHTS]}
    header = json.dumps({"weights": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + WEIGHTS)

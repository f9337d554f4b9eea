"""Records what a Docker daemon answers, for the fake daemon: `python -m tests.record_docker NAME`.

NAME is a new folder of tests/data/docker. The daemon is that of DOCKER_HOST and needs the image of
stack `local`. What tells of this machine is left out.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from docker.types import Ulimit

from offline.bootstrap.vllm_image import IMAGE
from vllm_spark.docker_host.connection import connect

DATA = Path(__file__).parent / "data" / "docker"
OF_THE_MACHINE = {
    "ID", "RegistryConfig", "HttpProxy", "HttpsProxy", "NoProxy", "SystemTime", "KernelVersion",
    "Containerd", "ContainerdCommit", "RuncCommit", "InitCommit", "IndexServerAddress", "Plugins",
}  # fmt: skip
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FOLDERS = re.compile(r"/[\w./-]+(?=/(?:containers|volumes|netns)/)")


def record(folder: Path) -> None:
    """Record a container of stack `local`'s image, the image, and the daemon itself."""
    client: Any = connect()
    api = client.api
    container = client.containers.create(
        IMAGE,
        ["60"],
        name="vllm-spark",
        entrypoint=["sleep"],
        environment=["A=b"],
        labels={"vllm-spark.stack": "spark"},
        ports={"8000/tcp": ("127.0.0.1", 8000)},
        volumes=["vllm-spark-cache:/root/.cache/huggingface"],
        restart_policy={"Name": "unless-stopped"},
        ulimits=[Ulimit(name="stack", soft=67108864, hard=67108864)],
        network_mode="bridge",
    )
    container.start()
    try:
        answers = {
            "container": api.inspect_container(container.id),
            "listed": api.containers(filters={"id": container.id})[0],
            "stats": {"memory_stats": api.stats(container.id, stream=False)["memory_stats"]},
            "image": api.inspect_image(IMAGE),
            "info": {k: v for k, v in api.info().items() if k not in OF_THE_MACHINE},
            "version": api.version(api_version=False),
        }
    finally:
        container.remove(force=True)
    for runtime in (answers["info"].get("Runtimes") or {}).values():
        runtime.pop("status", None)
    answers["info"].update(Name="spark", DockerRootDir="/var/lib/docker")
    answers["image"]["Config"].update(Env=[PATH], Labels=None)
    answers["image"].pop("ContainerConfig", None)
    # What runs is `sleep`; what the fake daemon shows is a server.
    answers["container"]["Config"].update(
        Env=["A=b", PATH], Entrypoint=["vllm", "serve"], Cmd=["--max-model-len", "2048"]
    )
    answers["container"]["Config"]["Labels"].pop("vllm-spark.recipe", None)
    for of_layers in (answers["image"], answers["container"]):
        of_layers.pop("GraphDriver", None)
    folder.mkdir()
    for name, answer in answers.items():
        text = FOLDERS.sub("/var/lib/docker", json.dumps(answer, indent=1))
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    record(DATA / sys.argv[1])

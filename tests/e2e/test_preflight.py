"""The preflight reports the problems of a change while the old server answers, and leaves it alone.

These tests use the fake server in the CPU image. The GPU is fake as well: Docker passes none on,
but requests for one are made and read as on a Spark.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container
from docker.types import DeviceRequest

from offline.bootstrap.small_model import MODEL_ID
from tests.e2e.poller import Poller, polled
from tests.e2e.project import FAKE_IMAGE, ROOT, Project

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

GPU_IMAGE = FAKE_IMAGE.replace("vllm-openai-cpu", "vllm-openai")
"""The same image under a name that does not look like a CPU image."""

GPU = {"gpus": "all", "restart": "no", "ipc": "private", "ulimits": {}}


@pytest.fixture(scope="module")
def served(project: Project) -> str:
    """A stack that is up; the id of its container."""
    project.configure_fake({}, container=GPU)
    up = project.up()
    assert up.code == 0, up.output
    return str(docker.from_env().containers.get(project.container).id)


@pytest.fixture
def client(served: str, project: Project) -> Iterator[Poller]:
    """A client that must not notice the change."""
    with polled(f"http://127.0.0.1:{project.port}/v1", MODEL_ID) as poller:
        yield poller
    assert poller.answers
    assert not poller.failures
    now = docker.from_env().containers.get(project.container)
    assert now.id == served, "the old server was not touched"


@pytest.fixture
def tenant(docker_client: docker.DockerClient, project: Project) -> Iterator[Container]:
    """Another container with the GPU, created by docker compose according to its labels."""
    container = docker_client.containers.run(
        FAKE_IMAGE,
        ["600"],
        entrypoint="sleep",
        name=f"{project.container}-tenant",
        labels={"com.docker.compose.project": "guide", "com.docker.compose.service": "vllm"},
        device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])],
        init=True,
        detach=True,
    )
    yield container
    container.remove(force=True)


@pytest.fixture
def held_port() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.fixture
def hub(docker_client: docker.DockerClient) -> Iterator[str]:
    """The address of a hub that has the model, at one revision."""
    server = docker_client.containers.run(
        FAKE_IMAGE,
        ["-c", f"mkdir -p /hub/{MODEL_ID} && echo '{{}}' > /hub/{MODEL_ID}/config.json "
         "&& exec python3 -u /local_hub.py /hub"],
        entrypoint="sh",
        volumes={str(ROOT / "tests" / "local_hub.py"): {"bind": "/local_hub.py", "mode": "ro"}},
        detach=True,
    )  # fmt: skip
    next(line for line in server.logs(stream=True) if b"listens" in line)
    server.reload()
    yield f"http://{server.attrs['NetworkSettings']['Networks']['bridge']['IPAddress']}:8080"
    server.remove(force=True)


def test_all_that_is_in_the_way_is_one_list_and_the_old_server_goes_on(
    client: Poller,
    project: Project,
    docker_client: docker.DockerClient,
    tenant: Container,
    held_port: int,
) -> None:
    docker_client.images.get(FAKE_IMAGE).tag(*GPU_IMAGE.split(":"))
    project.configure_fake(
        {},
        image={"name": GPU_IMAGE},
        container=GPU,
        engine={"gpu-memory-utilization": 0.85, "max-model-len": 2048, "bogus-flag": 1},
        host={"memoryGiB": 121.69},
        endpoint={"port": held_port},
    )
    up = project.up()
    assert up.code != 0
    said = up.output
    assert f"cannot be started on this host; {project.container}, which runs" in said
    owner = "service vllm of compose project guide"
    assert f"1. GPU: container {tenant.name} ({FAKE_IMAGE}, {owner}) runs on it" in said
    assert f"docker stop {tenant.name}; or let this stack stop it" in said
    assert f"2. port {held_port} on 127.0.0.1: is held by another process" in said
    assert "3. vllm-spark:host.memoryGiB: the plan is for 121.69 GiB, and this machine has" in said
    assert f"4. GPU: a container of {GPU_IMAGE} with `gpus: all` sees none" in said
    assert "5. vllm-spark:engine: the image's own vLLM refuses it: " in said
    assert "does not know: --bogus-flag" in said
    assert "Traceback" not in said


def test_a_revision_that_the_hub_does_not_have_changes_nothing(
    client: Poller, project: Project, hub: str
) -> None:
    container = {**GPU, "environment": {"HF_ENDPOINT": hub}}
    project.configure_fake({}, container=container, model={"id": MODEL_ID, "revision": "v9"})
    up = project.up()
    assert up.code != 0
    assert f"{MODEL_ID} has no revision v9" in up.output
    assert "vllm-spark:model.revision" in up.output


@pytest.fixture
def full_disk(docker_client: docker.DockerClient, project: Project) -> Iterator[str]:
    """A volume of two megabytes."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}
    volume = docker_client.volumes.create(f"{project.container}-full", driver_opts=options)
    yield str(volume.name)
    volume.remove(force=True)


def test_a_cache_on_a_full_disk_changes_nothing(
    client: Poller, project: Project, hub: str, full_disk: str
) -> None:
    container = {**GPU, "environment": {"HF_ENDPOINT": hub}}
    project.configure_fake({}, container=container, cache={"volume": full_disk})
    up = project.up()
    assert up.code != 0
    assert "are free on the disk of the cache" in up.output
    assert "or take another vllm-spark:cache" in up.output
    assert "Traceback" not in up.output


def test_a_takeover_stops_nobody_while_something_else_is_in_the_way(
    client: Poller, project: Project, tenant: Container, held_port: int
) -> None:
    project.configure_fake({}, container=GPU, gpu={"takeover": True}, endpoint={"port": held_port})
    up = project.up()
    assert up.code != 0
    assert f"1. port {held_port}" in up.output
    assert f"{tenant.name}" not in up.output
    tenant.reload()
    assert tenant.status == "running"


def test_a_takeover_stops_who_is_on_the_gpu_and_says_so(
    served: str, project: Project, tenant: Container
) -> None:
    project.configure_fake({"pace": "0"}, container=GPU, gpu={"takeover": True})
    up = project.up()
    assert up.code == 0, up.output
    assert f"takes the GPU over: stopping {tenant.name} ({FAKE_IMAGE}" in up.output
    assert f"`docker start {tenant.name}` brings it back" in up.output
    tenant.reload()
    assert tenant.status == "exited"

"""A download ends with the `up` that waits for it, and an upgrade does not begin one again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress

import docker
import pytest
from docker.errors import NotFound

from tests.e2e.project import FAKE_IMAGE, ROOT, UP, Project, Underway
from vllm_spark.docker_host.fetch import LABEL

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

MODEL = "slow/model"


@pytest.fixture(scope="module")
def hub(docker_client: docker.DockerClient) -> Iterator[str]:
    """The address of a hub that needs a day for a model."""
    server = docker_client.containers.run(
        FAKE_IMAGE,
        ["-c", f"mkdir -p /hub/{MODEL} && truncate -s 64M /hub/{MODEL}/model.safetensors "
         "&& exec python3 -u /local_hub.py /hub"],
        entrypoint="sh",
        environment={"HUB_RATE": "1000"},
        volumes={str(ROOT / "tests" / "local_hub.py"): {"bind": "/local_hub.py", "mode": "ro"}},
        detach=True,
    )  # fmt: skip
    next(line for line in server.logs(stream=True) if b"listens" in line)
    server.reload()
    yield f"http://{server.attrs['NetworkSettings']['Networks']['bridge']['IPAddress']}:8080"
    server.remove(force=True)


@pytest.fixture
def fetching(project: Project, hub: str, docker_client: docker.DockerClient) -> Iterator[Underway]:
    """An `up` that waits for a download."""
    volume = docker_client.volumes.create(f"{project.container}-cache")
    project.configure_fake(
        {},
        model={"id": MODEL},
        container={"environment": {"HF_ENDPOINT": hub}},
        cache={"volume": volume.name},
    )
    up = project.begin(*UP)
    up.until("MiB/s")
    yield up
    volume.remove(force=True)


def fetches(docker_client: docker.DockerClient) -> list[str]:
    """The containers that download the model, running or not."""
    found = docker_client.containers.list(all=True, filters={"label": f"{LABEL}={MODEL}"})
    return [str(container.name) for container in found]


def test_ctrl_c_ends_the_download(fetching: Underway, docker_client: docker.DockerClient) -> None:
    assert len(fetches(docker_client)) == 1
    fetching.process.send_signal(signal.SIGINT)
    ended = fetching.end()
    assert ended.code != 0
    assert "interrupted; nothing was changed" in ended.output
    assert "Traceback" not in ended.output
    assert fetches(docker_client) == []


def test_a_pulumi_that_is_killed_takes_the_download_with_it(
    fetching: Underway, docker_client: docker.DockerClient
) -> None:
    (name,) = fetches(docker_client)
    download = docker_client.containers.get(name)
    fetching.process.kill()
    fetching.end()
    with suppress(NotFound):  # it is gone already
        download.wait(condition="removed", timeout=30)
    assert fetches(docker_client) == []


def test_an_upgrade_whose_scripts_differ_fetches_nothing_again(project: Project) -> None:
    project.pulumi("cancel", "--yes")
    project.configure_fake({})
    assert project.up().code == 0
    script = project.directory / "vllm_spark" / "in_image" / "fetch_weights.py"
    script.write_text(script.read_text() + "\n# of a later release\n")
    unchanged = project.pulumi("preview", "--expect-no-changes", "--diff")
    assert unchanged.code == 0, unchanged.output

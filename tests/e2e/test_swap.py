"""A change of model on a running stack and back, and the faults between two servers.

These tests use the fake server in the CPU image, and their own cache with two models that differ
only in name.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from offline.bootstrap.small_model import MODEL_ID
from tests.e2e.poller import polled
from tests.e2e.project import FAKE_IMAGE, UP, Project
from vllm_spark.config.stack_file import load_stack
from vllm_spark.docker_host.drift import drift_lines

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

SECOND = "example/second-model"
MOVING_IMAGE = FAKE_IMAGE.replace("fake", "moving")
COPY = """
cd /to && cp --archive /from/models--HuggingFaceTB--SmolLM2-135M-Instruct .
cp --archive --link models--HuggingFaceTB--SmolLM2-135M-Instruct models--example--second-model
"""


@pytest.fixture(scope="module")
def cache(docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the small model under two names, and with unrelated files."""
    cache = tmp_path_factory.mktemp("cache")
    docker_client.containers.run(
        FAKE_IMAGE,
        ["-ec", COPY],
        entrypoint="sh",
        volumes={
            "vllm-spark-cache": {"bind": "/from", "mode": "ro"},
            str(cache): {"bind": "/to", "mode": "rw"},
        },
        remove=True,
    )
    (cache / "compiled").mkdir()
    (cache / "compiled" / "of-somebody-else").write_text("1")
    (cache / "notes.txt").write_text("2")
    return cache


@pytest.fixture(scope="module")
def first(project: Project, cache: Path) -> None:
    """The first model is served."""
    project.configure_fake({}, cache={"hostPath": str(cache)})
    up = project.up()
    assert up.code == 0, up.output


def served(project: Project) -> str:
    models = requests.get(f"http://127.0.0.1:{project.port}/v1/models", timeout=60).json()
    return str(models["data"][0]["id"])


def test_a_container_of_the_same_name_that_is_not_ours_is_named_and_kept(
    project: Project, cache: Path, docker_client: Any
) -> None:
    other = docker_client.api.create_container_from_config({"Image": FAKE_IMAGE}, project.container)
    try:
        project.configure_fake({}, cache={"hostPath": str(cache)})
        up = project.up()
        assert up.code != 0
        assert f"1. container {project.container}: exists, and the state of" in up.output
        assert f"fix: docker rm --force {project.container}" in up.output
        assert "Traceback" not in up.output
        assert docker_client.api.inspect_container(other["Id"])
    finally:
        docker_client.api.remove_container(other["Id"])


def test_the_second_model_takes_over_and_the_first_comes_back(
    first: None, project: Project, cache: Path
) -> None:
    assert served(project) == MODEL_ID
    with polled(f"http://127.0.0.1:{project.port}/v1", SECOND) as poller:
        project.configure_fake({}, cache={"hostPath": str(cache)}, model={"id": SECOND})
        up = project.up()
        assert up.code == 0, up.output
    assert poller.answers, "once the gate is through, the second model answers"
    assert served(project) == SECOND
    project.configure_fake({}, cache={"hostPath": str(cache)})
    up = project.up()
    assert up.code == 0, up.output
    assert served(project) == MODEL_ID


def test_what_an_interrupted_run_has_left_is_removed_unless_it_runs(
    first: None, project: Project, docker_client: Any
) -> None:
    labels = docker_client.api.inspect_container(project.container)["Config"]["Labels"]
    docker_client.api.remove_container(project.container, force=True)
    lost = {"Image": FAKE_IMAGE, "Labels": labels, "Entrypoint": ["sleep"], "Cmd": ["600"]}
    running = docker_client.api.create_container_from_config(lost, project.container)["Id"]
    docker_client.api.start(running)
    up = project.up()
    assert up.code != 0
    assert f"fix: docker rm --force {project.container}, then repeat" in up.output
    assert docker_client.api.inspect_container(running)["State"]["Running"]
    docker_client.api.stop(running, timeout=0)
    up = project.up()
    assert up.code == 0, up.output
    assert "removing what an interrupted run has left" in up.output


def test_another_checkout_with_a_stack_of_the_same_name_takes_nothing_down(
    first: None, project: Project, cache: Path, tmp_path: Path, docker_client: Any
) -> None:
    other = Project(tmp_path, project.stack)
    other.container, other.port = project.container, project.port
    other.configure_fake({}, cache={"hostPath": str(cache)})
    before = docker_client.api.inspect_container(project.container)["Id"]
    up = other.up()
    assert up.code != 0
    assert f"1. container {project.container}: exists, and the state of" in up.output
    other.pulumi("destroy", "--yes")
    after = docker_client.api.inspect_container(project.container)
    assert after["Id"] == before
    assert after["State"]["Running"]


def test_a_second_up_at_the_same_time_is_told_to_wait_and_harms_nothing(
    first: None, project: Project, cache: Path
) -> None:
    project.configure_fake({"load": "8"}, cache={"hostPath": str(cache)})
    slow = project.begin(*UP)
    slow.until("refreshing")
    second = project.up()
    first_up = slow.end()
    assert second.code != 0
    assert "the stack is currently locked by 1 lock(s)" in second.output
    assert "pulumi cancel" in second.output
    assert first_up.code == 0, first_up.output
    assert served(project) == MODEL_ID


def test_nothing_differs_from_what_is_declared_until_somebody_changes_it(
    first: None, project: Project, docker_client: Any
) -> None:
    settings = load_stack(project.directory / f"Pulumi.{project.stack}.yaml")

    def drift() -> list[str]:
        container = docker_client.api.inspect_container(project.container)
        return drift_lines(docker_client, settings, (), container)

    assert drift() == []
    docker_client.api.update_container(project.container, restart_policy={"Name": "no"})
    assert drift() == ["restart policy: runs with no, declared unless-stopped"]
    preview = project.pulumi("preview", "--refresh")
    assert "drift: restart policy: runs with no, declared unless-stopped" in preview.output


def test_the_cache_keeps_what_others_put_there_and_each_image_its_kernels(
    first: None, project: Project, cache: Path, docker_client: docker.DockerClient
) -> None:
    assert (cache / "compiled" / "of-somebody-else").read_text() == "1"
    assert (cache / "notes.txt").read_text() == "2"
    image_id = str(docker_client.images.get(FAKE_IMAGE).id)
    environment = docker_client.api.inspect_container(project.container)["Config"]["Env"]
    place = next(entry for entry in environment if entry.startswith("VLLM_CACHE_ROOT="))
    assert f"-{image_id.removeprefix('sha256:')[:12]}/vllm" in place


def test_a_tag_that_has_moved_is_named_and_would_replace_the_container(
    first: None, project: Project, cache: Path, docker_client: Any
) -> None:
    image = docker_client.images.get(FAKE_IMAGE)
    image.tag(MOVING_IMAGE)
    project.configure_fake({}, cache={"hostPath": str(cache)}, image={"name": MOVING_IMAGE})
    up = project.up()
    assert up.code == 0, up.output
    dockerfile = io.BytesIO(f"FROM {FAKE_IMAGE}\nLABEL moved=yes".encode())
    moved, _ = docker_client.images.build(fileobj=dockerfile, tag=MOVING_IMAGE, rm=True)
    try:
        preview = project.pulumi("preview", "--refresh", "--diff")
    finally:
        docker_client.images.remove(MOVING_IMAGE)
    was, now = (one.id.removeprefix("sha256:")[:12] for one in (image, moved))
    assert f"drift: image id: runs with {image.id}, declared {moved.id}" in preview.output
    assert f"-{was}/vllm" in preview.output
    assert f"-{now}/vllm" in preview.output, "it would take no kernels of the image before"
    assert "docker:index/container:Container: (replace)" in preview.output

"""Fixtures for projects: they remove the containers, and show the output of a failed test."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import tarfile
from collections.abc import Iterator
from contextlib import suppress

import docker
import pytest
from docker.errors import NotFound

from tests.e2e.fake_image import build_fake_image, lock_file
from tests.e2e.project import GUIDE_IMAGE, LOADS_LONG, LOADS_LONG_PHASE, UP, Project, Underway

STAND_IN = "vllm-spark.stand-in"
"""The label of an image that stands for one which cannot be pulled here."""


@pytest.fixture(scope="session")
def docker_client() -> docker.DockerClient:
    """The Docker daemon."""
    return docker.from_env()


@pytest.fixture(scope="session")
def fake_image(docker_client: docker.DockerClient) -> str:
    """The CPU image with the fake server as its `vllm`; the rest of it is real."""
    return build_fake_image(docker_client)


@pytest.fixture(scope="module")
def guide_image(docker_client: docker.DockerClient) -> Iterator[None]:
    """The guide's image. Where it cannot be pulled: an empty one of its name, with an entrypoint.

    NVIDIA's image has an entrypoint that a container must keep. An empty one is enough to create
    containers from; it does not show that the pull works.
    """
    with lock_file("guide-image").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        # One at a time: two imports would create two image ids.
        with lock_file("guide-image-import").open("w") as importing:
            fcntl.flock(importing, fcntl.LOCK_EX)
            _ensure_guide_image(docker_client)
        yield
        with suppress(BlockingIOError):  # tests of another process use it still
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for _ in docker_client.images.list(GUIDE_IMAGE, filters={"label": STAND_IN}):
                # By force: a run that was killed may have left a container of it.
                docker_client.images.remove(GUIDE_IMAGE, force=True)


def _ensure_guide_image(docker_client: docker.DockerClient) -> None:
    if docker_client.images.list(GUIDE_IMAGE):
        return
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    changes = ['ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]', f"LABEL {STAND_IN}=yes"]
    name, tag = GUIDE_IMAGE.split(":")
    docker_client.api.import_image_from_data(empty.getvalue(), name, tag, changes=changes)


@pytest.fixture(scope="module")
def project(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    docker_client: docker.DockerClient,
) -> Iterator[Project]:
    """A project for the tests of one module; only its cache is left behind."""
    stack = request.module.__name__.rpartition("test_")[2].replace("_", "-")
    project = Project(tmp_path_factory.mktemp(stack), stack)
    failed_before = request.session.testsfailed
    yield project
    project.pulumi("destroy", "--yes")
    for left in project.processes():  # by a Pulumi that a test killed
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGTERM)
    with suppress(NotFound):
        docker_client.api.remove_container(project.container, force=True)
    if request.session.testsfailed > failed_before:
        print((project.directory / "output.txt").read_text())


@pytest.fixture
def waiting(project: Project) -> Underway:
    """An `up` whose gate waits for a start that takes long."""
    project.configure_fake(LOADS_LONG)
    up = project.begin(*UP)
    up.until(LOADS_LONG_PHASE)
    return up

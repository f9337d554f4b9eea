"""An image behind a login, as on nvcr.io: pulled with a secret of the stack, and pinned by digest.

The test runs a registry that requires NVIDIA's user and a password. Its image is empty, which is
enough for a stack that is not started.
"""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from tests.e2e.project import Project
from tests.offline.registry import PASSWORD, registry

pytestmark = pytest.mark.e2e

AS_ON_A_GPU = {"state": "stopped", "host": {"memoryGiB": 64}}
"""The image's name is not that of one for the CPU, so the plan is for a GPU."""


@pytest.fixture(scope="module")
def image(docker_client: docker.DockerClient) -> Iterator[str]:
    with registry() as address:
        name = f"{address}/offline-test-pulled:good"
        yield name
        docker_client.images.remove(name, force=True)


def test_without_a_password_the_key_to_set_is_named(project: Project, image: str) -> None:
    project.configure(image={"name": image, "vllmVersion": "0.32.0"}, **AS_ON_A_GPU)
    up = project.up()
    assert up.code != 0
    assert "`pulumi config set --secret vllm-spark:registryPassword`" in up.output


def test_with_it_the_image_is_pulled_its_digest_recorded_and_the_password_not_shown(
    project: Project, image: str
) -> None:
    project.pulumi("config", "set", "--secret", "vllm-spark:registryPassword", PASSWORD)
    up = project.up()
    assert up.code == 0, up.output
    repository = image.removesuffix(":good")
    assert project.outputs()["imageDigest"].startswith(f"{repository}@sha256:")
    state = project.pulumi("stack", "export").output
    assert repository in state
    assert PASSWORD not in state + up.output
    assert f"pulling {image}" in up.output

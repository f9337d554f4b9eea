"""Projects that are torn down with their containers, and whose output is shown on failure."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress

import docker
import pytest
from docker.errors import ImageNotFound, NotFound

from bootstrap.engine_image import IMAGE
from tests.e2e.project import FAKE_IMAGE, GUIDE_IMAGE, ROOT, Project

FAKE_DOCKERFILE = f"""
FROM {IMAGE}
COPY fake_engine.py logs /fake/
COPY fake_vllm.py /fake/site/vllm.py
ENV PYTHONPATH=/fake/site
RUN printf '#!/bin/sh\\nexec python3 -u /fake/fake_engine.py "$@"\\n' > "$(command -v vllm)"
"""


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    """The Docker engine."""
    return docker.from_env()


@pytest.fixture(scope="session")
def fake_image(engine: docker.DockerClient) -> str:
    """The CPU engine's image with the fake engine for its `vllm`; all else in it is real."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        dockerfile = tarfile.TarInfo("Dockerfile")
        dockerfile.size = len(FAKE_DOCKERFILE.encode())
        tar.addfile(dockerfile, io.BytesIO(FAKE_DOCKERFILE.encode()))
        tar.add(ROOT / "tests" / "fake_engine.py", "fake_engine.py")
        tar.add(ROOT / "tests" / "fake_vllm.py", "fake_vllm.py")
        tar.add(ROOT / "tests" / "data" / "logs", "logs")
    context.seek(0)
    engine.images.build(fileobj=context, custom_context=True, tag=FAKE_IMAGE, rm=True)
    return FAKE_IMAGE


@pytest.fixture(scope="module")
def guide_image(engine: docker.DockerClient) -> Iterator[None]:
    """The guide's image. Where it cannot be pulled: an empty one of its name, with an entrypoint.

    NVIDIA's image has an entrypoint that a container must keep. An empty one is enough to create
    containers from; it does not show that the pull works.
    """
    try:
        engine.images.get(GUIDE_IMAGE)
    except ImageNotFound:
        empty = io.BytesIO()
        tarfile.open(fileobj=empty, mode="w").close()
        entrypoint = 'ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]'
        repository, tag = GUIDE_IMAGE.split(":")
        engine.api.import_image_from_data(empty.getvalue(), repository, tag, changes=[entrypoint])
        yield
        engine.images.remove(GUIDE_IMAGE)
    else:
        yield


@pytest.fixture(scope="module")
def project(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    engine: docker.DockerClient,
) -> Iterator[Project]:
    """A project for the tests of one module; nothing of it but the cache is left behind."""
    stack = request.module.__name__.rpartition("test_")[2].replace("_", "-")
    project = Project(tmp_path_factory.mktemp(stack), stack)
    failed_before = request.session.testsfailed
    yield project
    project.pulumi("destroy", "--yes")
    with suppress(NotFound):
        engine.api.remove_container(project.container, force=True)
    if request.session.testsfailed > failed_before:
        print((project.directory / "output.txt").read_text())

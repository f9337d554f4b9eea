"""Projects that are torn down with their containers, and whose output is shown on failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import docker
import pytest
from docker.errors import NotFound

from tests.e2e.project import Project


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    """The Docker engine."""
    return docker.from_env()


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

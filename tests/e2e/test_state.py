"""`vllm-spark:state`: stopped, running, and stopped again."""

from __future__ import annotations

import docker
import pytest
import requests

from tests.e2e.project import Project

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]


def status(docker_client: docker.DockerClient, project: Project) -> str:
    """Docker's name for the state of the project's container: created, running, exited."""
    return str(docker_client.api.inspect_container(project.container)["State"]["Status"])


@pytest.fixture(scope="module")
def stopped(project: Project) -> None:
    """A stack that has never run."""
    project.configure_fake({}, state="stopped")
    up = project.up()
    assert up.code == 0, up.output


@pytest.fixture(scope="module")
def running(project: Project, stopped: None) -> None:
    """The same stack with `state: running`."""
    project.configure_fake({})
    up = project.up()
    assert up.code == 0, up.output


def test_a_stopped_stack_has_a_container_that_was_never_started(
    stopped: None, project: Project, docker_client: docker.DockerClient
) -> None:
    assert status(docker_client, project) == "created"


def test_a_stopped_stack_stays_as_it_is(stopped: None, project: Project) -> None:
    preview = project.pulumi("preview", "--expect-no-changes", "--diff")
    assert preview.code == 0, preview.output


def test_a_stopped_stack_told_to_run_answers(
    running: None, project: Project, docker_client: docker.DockerClient
) -> None:
    assert status(docker_client, project) == "running"
    health = requests.get(f"http://127.0.0.1:{project.port}/health", timeout=60)
    assert health.status_code == 200


def test_a_running_stack_told_to_stop_stops_its_server(
    running: None, project: Project, docker_client: docker.DockerClient
) -> None:
    project.configure_fake({}, state="stopped")
    preview = project.pulumi("preview", "--diff")
    assert "start  : true => false" in preview.output, "the preview says what will happen"
    up = project.up()
    assert up.code == 0, up.output
    assert status(docker_client, project) == "created"
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{project.port}/health", timeout=60)

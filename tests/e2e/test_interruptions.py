"""An interrupted `up` always leaves a state from which the next one recovers.

Also: a failed replacement that is then reverted, which Pulumi once reported as "unchanged" although
the server was gone (pulumi/pulumi#16629).
"""

from __future__ import annotations

import io
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress

import docker
import pytest

from tests.e2e.project import FAKE_IMAGE, UP, Project, Underway, assert_comes_up

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

UNREFRESHED_UP = ("up", "--yes", "--skip-preview")
DYNAMIC_PROVIDER = b"pulumi.dynamic"
CANNOT_START = f"{FAKE_IMAGE}-cannot-start"
"""Docker creates a container of it and cannot start it. No check before finds that."""


def status(docker_client: docker.DockerClient, project: Project) -> str:
    return str(docker_client.api.inspect_container(project.container)["State"]["Status"])


def kill(processes: list[int], number: signal.Signals) -> None:
    """Signal the processes that still run; some end together with the first one."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def assert_recovers(project: Project, command: tuple[str, ...] = UP) -> None:
    assert_comes_up(project, command)
    unchanged = project.pulumi("preview", "--expect-no-changes", "--diff")
    assert unchanged.code == 0, unchanged.output


def test_ctrl_c_ends_the_wait_and_leaves_the_start_alone(
    waiting: Underway, project: Project, docker_client: docker.DockerClient
) -> None:
    waiting.process.send_signal(signal.SIGINT)
    ended = waiting.end()
    assert ended.code != 0
    assert "the wait for" in ended.output
    assert "was interrupted" in ended.output
    assert "Traceback" not in ended.output
    assert status(docker_client, project) == "running"


def test_after_ctrl_c_the_next_up_recovers(project: Project) -> None:
    assert_recovers(project)


def test_after_the_cli_was_killed_its_lock_is_cancelled_and_the_next_up_recovers(
    waiting: Underway, project: Project
) -> None:
    orphans = [os.pidfd_open(provider) for provider in project.processes(DYNAMIC_PROVIDER)]
    waiting.process.kill()
    waiting.end()
    for orphan in orphans:
        ended, _, _ = select.select([orphan], [], [], 30)
        assert ended, "a gate that nobody waits for could stop the next server"
    kill(project.processes(b"language-python"), signal.SIGTERM)  # Pulumi's own, which it leaves
    assert "locked" in project.up().output, "Pulumi cannot know that nobody holds it any more"
    assert project.pulumi("cancel", "--yes").code == 0
    assert_recovers(project)


def test_after_a_plugin_was_killed_the_next_up_recovers(
    waiting: Underway, project: Project
) -> None:
    plugins = project.processes(DYNAMIC_PROVIDER)
    assert plugins
    kill(plugins, signal.SIGKILL)
    assert waiting.end().code != 0
    assert_recovers(project)


@pytest.mark.parametrize("command", ["stop", "remove"])
def test_a_server_that_somebody_ended_is_seen_and_fixed(
    project: Project, docker_client: docker.DockerClient, command: str
) -> None:
    container = docker_client.containers.get(project.container)
    container.stop(timeout=0) if command == "stop" else container.remove(force=True)
    assert_recovers(project)


def test_a_container_that_somebody_edited_is_seen_and_fixed(
    project: Project, docker_client: docker.DockerClient
) -> None:
    docker_client.containers.get(project.container).update(restart_policy={"Name": "always"})
    assert_recovers(project)
    host = docker_client.api.inspect_container(project.container)["HostConfig"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


def test_a_server_that_a_failed_gate_has_stopped_is_started_by_a_plain_up(
    project: Project,
) -> None:
    # Longer than the gate waits after its own request, so the time of that request does not matter.
    slow = {"pace": "4"}
    project.configure_fake(slow, health={"timeoutSeconds": 1})
    assert project.up().code != 0
    project.configure_fake(slow)
    up = project.pulumi(*UNREFRESHED_UP)
    assert up.code == 0, up.output
    assert "was stopped; starting it again" in up.output
    assert project.answers()


@pytest.fixture
def cannot_start(docker_client: docker.DockerClient) -> Iterator[str]:
    """An image whose server is not there."""
    dockerfile = f'FROM {FAKE_IMAGE}\nENTRYPOINT ["/nowhere/vllm", "serve"]\n'
    docker_client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=CANNOT_START, rm=True)
    yield CANNOT_START
    docker_client.images.remove(CANNOT_START, force=True)


def test_a_container_that_cannot_start_fails_the_up_and_the_next_one_too(
    project: Project, docker_client: docker.DockerClient, cannot_start: str
) -> None:
    project.configure_fake({}, image={"name": cannot_start})
    assert project.up().code != 0
    again = project.pulumi(*UNREFRESHED_UP)
    assert again.code != 0, f"green with nothing running:\n{again.output}"
    assert "Traceback" not in again.output
    assert status(docker_client, project) != "running"


def test_a_failed_replacement_that_is_taken_back_brings_the_old_server_back(
    project: Project,
) -> None:
    assert_recovers(project, UNREFRESHED_UP)


def test_a_failed_gate_whose_config_is_taken_back_brings_the_old_server_back(
    project: Project,
) -> None:
    project.configure_fake({"fault": "exit-1"})
    assert project.up().code != 0
    assert_recovers(project, UNREFRESHED_UP)

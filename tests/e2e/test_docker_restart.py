"""A Docker daemon that dies while a server starts, alone or with everything else.

These tests take every container of the machine down.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import docker
import pytest

from offline.bootstrap.docker_daemon import PID_FILE, start_docker
from tests.e2e.project import Project, Underway, assert_comes_up
from vllm_spark.errors import DockerUnavailable

SYSTEMD = Path("/run/systemd/system")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.alone,
    pytest.mark.usefixtures("fake_image"),
    pytest.mark.skipif(SYSTEMD.exists(), reason="a Docker that systemd runs is not ours to kill"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can kill the Docker daemon"),
]


def kill(pid: int) -> None:
    """End a process, and wait for its end. A zombie may keep its PID."""
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([process], [], [])


def test_a_docker_engine_that_dies_meanwhile_is_blamed_and_not_the_server(
    waiting: Underway, project: Project
) -> None:
    kill(int(PID_FILE.read_text()))
    waiting.until("cannot ask Docker")
    start_docker(DockerUnavailable("it was killed"))
    ended = waiting.end()
    assert ended.code != 0
    assert "the Docker daemon was restarted while the server started, and ended it" in ended.output
    assert "Traceback" not in ended.output
    assert_comes_up(project)


def test_after_a_power_cut_the_state_is_unlocked_and_the_next_up_recovers(
    waiting: Underway, project: Project, docker_client: docker.DockerClient
) -> None:
    server = docker_client.api.inspect_container(project.container)["State"]["Pid"]
    for process in (*project.processes(), int(PID_FILE.read_text()), server):
        kill(process)
    waiting.end()
    start_docker(DockerUnavailable("it was killed"))
    assert "pulumi cancel" in project.up().output, "Pulumi cannot know that nobody holds its lock"
    assert project.pulumi("cancel", "--yes").code == 0
    assert_comes_up(project)

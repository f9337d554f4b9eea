"""A Docker engine that dies while a server starts. It takes every container of the machine down."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from bootstrap.docker_engine import ensure_docker
from tests.e2e.project import UP, Project

SYSTEMD = Path("/run/systemd/system")
PID_FILE = Path("/var/run/docker.pid")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.alone,
    pytest.mark.usefixtures("fake_image"),
    pytest.mark.skipif(SYSTEMD.exists(), reason="a Docker that systemd runs is not ours to kill"),
]


def test_a_docker_engine_that_dies_meanwhile_is_blamed_and_not_the_server(project: Project) -> None:
    project.configure_fake(
        {"log": "/fake/30b_guide_warm.timed.jsonl", "speed": "100", "load": "60"}
    )
    up = project.begin(*UP)
    up.until("starting the server")
    pid = int(PID_FILE.read_text())
    daemon = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([daemon], [], [])
    up.until("cannot ask Docker")
    ensure_docker()
    ended = up.end()
    assert ended.code != 0
    assert "the Docker engine was restarted while the server started, and ended it" in ended.output
    assert "Traceback" not in ended.output


def test_the_next_up_recovers(project: Project) -> None:
    project.configure_fake({})
    up = project.up()
    assert up.code == 0, up.output

"""Checks of the daemon's host, also if that is not the machine that runs Pulumi."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from offline.bootstrap.vllm_image import IMAGE
from vllm_spark.config.sections import Endpoint
from vllm_spark.docker_host import host as host_checks
from vllm_spark.docker_host.host import DockerHost

pytestmark = pytest.mark.docker


def test_the_memory_of_another_machine_is_read_in_a_container_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = DockerHost("no-such-container", IMAGE)
    here = host.memory()
    monkeypatch.setattr(host_checks, "MEMINFO", Path("/nowhere"))
    there = host.memory()
    assert there.total_gib == here.total_gib
    assert there.available_gib > 0


def test_a_port_that_only_root_may_listen_on_is_left_to_docker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unprivileged(socket.socket):
        def bind(self, _address: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket", Unprivileged)
    host = DockerHost("no-such-container", IMAGE)
    assert host.port_problem(Endpoint(port=443), []) is None

"""Checks of the daemon's host, also if that is not the machine that runs Pulumi."""

from __future__ import annotations

import errno
import io
import platform
import socket
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import docker
import pytest

from offline.bootstrap.vllm_image import IMAGE
from vllm_spark.config.sections import Endpoint
from vllm_spark.docker_host import host as host_checks
from vllm_spark.docker_host.host import DockerHost

pytestmark = pytest.mark.docker

X86_64, AARCH64 = 62, 183
"""The processors in the header of a program, as the kernel numbers them."""


@pytest.fixture
def foreign_image(docker_client: docker.DockerClient) -> Iterator[str]:
    """An image for the other of our two processors, with a program for it."""
    here = platform.machine() == "x86_64"
    program = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHI3QI6H", 2, AARCH64 if here else X86_64, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0
    )
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        dockerfile = b"FROM scratch\nCOPY python3 /usr/bin/python3\n"
        for name, content in (("Dockerfile", dockerfile), ("python3", program)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    name = f"vllm-spark-test/foreign:{uuid4().hex[:8]}"
    docker_client.images.build(
        fileobj=context,
        custom_context=True,
        tag=name,
        platform="linux/arm64" if here else "linux/amd64",
    )
    yield name
    docker_client.images.remove(name, force=True)


def test_an_image_for_another_processor_is_found_by_running_it(foreign_image: str) -> None:
    assert DockerHost("no-such-container", IMAGE).architecture_problem() is None
    problem = DockerHost("no-such-container", foreign_image).architecture_problem()
    assert problem is not None
    assert "its programs do not run here" in problem.what


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

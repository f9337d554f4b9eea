"""Ctrl-C ends each wait of an `up` at once, and the output says what goes on in Docker.

tests/unit/test_ctrl_c.py has the same waits with a fake daemon; here Pulumi and Docker are real.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest
from docker.types import DeviceRequest

from tests.e2e.project import FAKE_IMAGE, UP, Project, Run, Underway, assert_comes_up

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

PATIENCE_SECONDS = 30
"""Half of the shortest limit that would end the wait for a silent daemon; reached only by a test
that fails."""

REAL_DAEMON = "/var/run/docker.sock"


def interrupted(up: Underway, at: str) -> Run:
    """Ctrl-C once the output has this text. A terminal signals `pulumi` alone."""
    up.until(at)
    up.process.send_signal(signal.SIGINT)
    ended = up.end()
    assert ended.code != 0
    assert "Traceback" not in ended.output
    return ended


def test_a_failed_server_that_is_being_stopped_is_not_waited_for(
    project: Project, docker_client: docker.DockerClient
) -> None:
    project.configure_fake({"fault": "mute,sigterm-swallowed"})
    ended = interrupted(project.begin(*UP), "; stopping it")
    assert "cause: no memory is left for the KV cache" in ended.output
    assert "is being stopped, with which Docker goes on, and is kept" in ended.output
    docker_client.containers.get(project.container).wait()


def test_a_takeover_ends_while_docker_goes_on_stopping(
    project: Project, docker_client: docker.DockerClient
) -> None:
    tenant = docker_client.containers.run(
        FAKE_IMAGE,
        ["600"],
        entrypoint="sleep",  # as process 1 it ignores SIGTERM
        name=f"{project.container}-tenant",
        device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])],
        detach=True,
    )
    try:
        on_gpu = {"gpus": "all", "restart": "no", "ipc": "private", "ulimits": {}}
        project.configure_fake({}, container=on_gpu, gpu={"takeover": True})
        ended = interrupted(project.begin(*UP), "takes the GPU over: stopping")
        tenant.reload()
        assert tenant.status == "running", "Docker gives it 30 s"
        assert f"interrupted while {tenant.name} was being stopped" in ended.output
        assert f"`docker start {tenant.name}` brings it back" in ended.output
    finally:
        tenant.remove(force=True)


def test_the_wait_for_memory_ends_and_the_next_up_creates_the_server(
    project: Project, tmp_path: Path, docker_client: docker.DockerClient
) -> None:
    assert_comes_up(project)
    memory = tmp_path / "meminfo"
    real = Path("/proc/meminfo").read_text()
    memory.write_text(real)
    host = project.directory / "vllm_spark" / "docker_host" / "host.py"
    program = host.read_text()
    host.write_text(program.replace('Path("/proc/meminfo")', f'Path("{memory}")'))
    project.configure_fake({"pace": "0"})
    up = project.begin(*UP)
    up.until("deleting")
    available = next(line for line in real.splitlines() if line.startswith("MemAvailable:"))
    memory.write_text(real.replace(available, "MemAvailable:  1024 kB"))
    ended = interrupted(up, "waiting for memory")
    assert f"interrupted before {project.container} was created" in ended.output
    assert not docker_client.containers.list(all=True, filters={"name": project.container})
    host.write_text(program)
    assert_comes_up(project)


@pytest.fixture
def silent(project: Project, tmp_path: Path) -> Iterator[threading.Event]:
    """Once it is set, the project's Docker daemon takes requests and answers none."""
    silence = threading.Event()
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=_forward, args=(listener, silence), daemon=True).start()
        project.environment["DOCKER_HOST"] = f"unix://{path}"
        yield silence
        silence.clear()
        project.pulumi("destroy", "--yes")  # the state has this address
    del project.environment["DOCKER_HOST"]


def _forward(listener: socket.socket, silence: threading.Event) -> None:
    with suppress(OSError):  # the test is over
        while True:
            client, _ = listener.accept()
            daemon = socket.socket(socket.AF_UNIX)
            daemon.connect(REAL_DAEMON)
            for source, sink in ((client, daemon), (daemon, client)):
                threading.Thread(target=_copy, args=(source, sink, silence), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket, silence: threading.Event) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            while silence.is_set():
                time.sleep(0.1)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_a_daemon_that_falls_silent_is_not_waited_for(
    silent: threading.Event, waiting: Underway
) -> None:
    silent.set()
    waiting.process.send_signal(signal.SIGINT)
    waiting.process.wait(timeout=PATIENCE_SECONDS)
    assert "was interrupted" in waiting.end().output

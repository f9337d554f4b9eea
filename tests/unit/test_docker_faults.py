"""Faults of Docker and of containers that a server must survive, or that the user must be told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from tests import fake_server
from tests.fake_daemon import GPU, IMAGE, Container, FakeDaemon, hangs_up, never_answers, never_ends
from tests.unit.test_image_check import CPU
from tests.unit.test_image_check import settings as image_settings
from vllm_spark.config.sections import Endpoint
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.tenants import Identity
from vllm_spark.docker_host import container_watch
from vllm_spark.docker_host import host as docker_host
from vllm_spark.docker_host.connection import Daemon
from vllm_spark.docker_host.container_watch import ContainerWatch
from vllm_spark.docker_host.host import DockerHost
from vllm_spark.docker_host.image_check import ask_image
from vllm_spark.docker_host.wait_for_answer import wait_for_answer
from vllm_spark.errors import GateError, Interrupted
from vllm_spark.gate.probe import Probe

US = Identity("project", "spark", "vllm", "0123456789ab")
NAME = "vllm-spark"
LIMIT_SECONDS = 15.0
"""Far beyond the limit of a read, which these tests set to one second."""


@pytest.fixture(autouse=True)
def short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Daemon.connect

    def quickly(daemon: Daemon, timeout: float = 1) -> docker.DockerClient:
        return connect(daemon, 1)

    monkeypatch.setattr(Daemon, "connect", quickly)
    monkeypatch.setattr(container_watch, "RECONNECT_SECONDS", 0.05)


def ends(act: Callable[[], object]) -> bool:
    """Whether it ends, well or not, within the limit."""
    thread = threading.Thread(target=lambda: _quietly(act), daemon=True)
    thread.start()
    thread.join(LIMIT_SECONDS)
    return not thread.is_alive()


def _quietly(act: Callable[[], object]) -> None:
    try:
        act()
    except Exception as error:
        print(error)


def settings(**keys: Any) -> Settings:
    config = {"model": "owner/model", "image": "nvcr.io/nvidia/vllm:25.09-py3"}
    return Settings.parse({**config, "cache": {"volume": "weights"}, **keys}, frozenset())


@pytest.mark.parametrize("policy", ["no", "on-failure"])
def test_what_the_gate_stopped_is_started_again_under_every_policy(
    policy: str, daemon: FakeDaemon
) -> None:
    server = daemon.add(NAME)
    server.inspected["HostConfig"]["RestartPolicy"]["Name"] = policy
    ContainerWatch(server.id).stop()
    assert ContainerWatch(server.id).start_again()
    assert server.running


@pytest.mark.parametrize("fault", [never_ends, never_answers], ids=["never ends", "no answer"])
def test_events_that_do_not_end_leave_the_end_unknown(fault: Any, daemon: FakeDaemon) -> None:
    server = daemon.add(NAME)
    daemon.fault("GET /events", fault)
    watch = ContainerWatch(server.id)
    assert ends(lambda: watch.end_of(server.inspected["State"]["StartedAt"]))


def test_a_container_that_never_tells_the_memory_is_given_up(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_host, "PRINT_SECONDS", 1)
    daemon.info["MemTotal"] = 1
    host = DockerHost(NAME, IMAGE)
    assert ends(lambda: host.memory())


def test_ctrl_c_is_told_though_the_daemon_went_away_meanwhile(
    daemon: FakeDaemon, ctrl_c: Callable[[], None]
) -> None:
    daemon.add_image(CPU)
    daemon.when_started = lambda _container: ctrl_c()
    daemon.fault("DELETE", hangs_up)
    with pytest.raises(Interrupted):
        ask_image(image_settings(), about_flags=True)


@pytest.fixture
def late_server(port: int) -> Iterator[Callable[[], None]]:
    """Starts a server that answers on `port`."""
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        environment = {**os.environ, "FAKE_PORT": str(port), "FAKE_DEADLINE": "60"}
        argv = [sys.executable, fake_server.__file__, "model"]
        processes.append(subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL))

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait(container: Container, port: int, stall: float) -> object:
    return wait_for_answer(
        NAME,
        container.id,
        Probe(f"http://127.0.0.1:{port}/v1", "model", None, quick=2, patience=20),
        timeout_seconds=40,
        stall_seconds=stall,
    )


def test_a_log_that_cannot_be_read_is_said_and_is_no_silence(
    daemon: FakeDaemon,
    port: int,
    late_server: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    container = daemon.add(NAME, host={"LogConfig": {"Type": "none", "Config": {}}})

    def once_long_silent() -> None:
        daemon.wait_for(lambda: sum("/json" in asked for asked in daemon.asked) > 10)
        late_server()

    threading.Thread(target=once_long_silent, daemon=True).start()
    wait(container, port, stall=0.5)
    assert "logging driver does not support reading" in capsys.readouterr().out


def test_an_engine_that_docker_says_was_killed_for_memory_is_named_as_such(
    daemon: FakeDaemon,
) -> None:
    container = daemon.add(NAME)
    container.inspected["State"]["OOMKilled"] = True
    container.prints(
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {}\n"
    )
    with pytest.raises(GateError, match=r"killed for memory|out of memory"):
        wait(container, 9, stall=20)


def on(*devices: str) -> dict[str, Any]:
    request = {**GPU, "Count": 0, "DeviceIDs": list(devices)}
    return {"image": "vllm/vllm-openai:v0.32.0", "host": {"DeviceRequests": [request]}}


@pytest.mark.parametrize("device", ["0", "nvidia.com/gpu=0"])
def test_containers_on_other_gpus_are_no_tenants(device: str, daemon: FakeDaemon) -> None:
    daemon.add("zero", **on(device))
    daemon.add("one", **on("1"))
    found = DockerHost(NAME, IMAGE).tenants(settings(container={"gpus": [1]}), US)
    assert [one.name for one in found] == ["one"]


@pytest.mark.parametrize(
    ("address", "protocol", "held"),
    [
        ("192.0.2.7", "tcp", False),
        ("127.0.0.1", "udp", False),
        ("::1", "tcp", False),
        ("127.0.0.1", "tcp", True),
        ("0.0.0.0", "tcp", True),
    ],
)
def test_a_port_is_held_by_address_and_protocol(
    address: str, protocol: str, held: bool, daemon: FakeDaemon, port: int, available: object
) -> None:
    bound = {f"8000/{protocol}": [{"HostIp": address, "HostPort": str(port)}]}
    daemon.add("other", host={"PortBindings": bound})
    problem = DockerHost(NAME, IMAGE).port_problem(Endpoint(port=port), [])
    assert (problem is not None) is held


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_ipv4_process_does_not_hold_the_port_of_every_ipv6_address(
    daemon: FakeDaemon, available: object
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        endpoint = Endpoint.model_validate({"bind": "::", "port": listener.getsockname()[1]})
        assert DockerHost(NAME, IMAGE).port_problem(endpoint, []) is None


def test_a_server_that_docker_restarts_again_and_again_gives_nothing_back(
    daemon: FakeDaemon,
) -> None:
    command = ["vllm", "serve", "--gpu-memory-utilization", "0.85"]
    old = daemon.add(NAME, Cmd=command, **on("0"))
    old.inspected["State"].update(Status="restarting", Restarting=True)
    assert sum(DockerHost(NAME, IMAGE).returned(settings(), []).values()) == 0  # type: ignore[arg-type]

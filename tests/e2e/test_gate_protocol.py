"""The health gate as the Pulumi engine sees it: its provider process, driven over gRPC.

The containers run the fake server in the CPU image, because that has a Python.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import grpc  # type: ignore[import-untyped]
import pytest

from offline.bootstrap.vllm_image import IMAGE
from tests.e2e.gate_process import GateProcess
from vllm_spark.deployment.records import RECORD

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def provider() -> Iterator[GateProcess]:
    """The gate's provider in a separate process, as the Pulumi engine starts it."""
    with GateProcess() as gate:
        yield gate


@pytest.fixture
def server(
    request: pytest.FixtureRequest, docker_client: docker.DockerClient
) -> Iterator[dict[str, Any]]:
    """The gate's properties for a container with the fault that the test names."""
    container = docker_client.containers.run(
        IMAGE,
        ["/fake_server.py", "model"],
        entrypoint="python",
        environment={"FAKE_FAULT": getattr(request, "param", "")},
        volumes={str(ROOT / "tests" / "fake_server.py"): {"bind": "/fake_server.py", "mode": "ro"}},
        ports={"8000/tcp": ("127.0.0.1", 0)},
        restart_policy={"Name": "always"},
        detach=True,
    )
    container.reload()
    published = container.ports.get("8000/tcp")
    port = published[0]["HostPort"] if published else "9"  # none any more if it has ended
    record = {
        "containerId": container.id,
        "containerName": container.name,
        "url": f"http://127.0.0.1:{port}/v1",
        "model": "model",
        "timeoutSeconds": "60",
        "stallSeconds": "60",
    }
    yield {RECORD: record, "question": "1"}
    container.remove(force=True)


def test_create_completes_when_the_model_has_answered(provider: GateProcess, server: Any) -> None:
    created = provider.create(server)
    assert created["healthy"] is True
    assert created["readySeconds"] > 0
    assert created["startedAt"]


def test_an_answered_gate_is_unchanged_and_another_container_changes_it(
    provider: GateProcess, server: Any
) -> None:
    created = provider.create(server)
    assert not provider.changes(created, server)
    assert provider.changes(created, {**server, "question": "2"})
    longer = {**server, RECORD: {**server[RECORD], "timeoutSeconds": "9"}}
    assert not provider.changes(created, longer), "no other question"


def test_a_refresh_of_a_stopped_container_makes_the_next_up_ask_again(
    provider: GateProcess, server: Any, docker_client: docker.DockerClient
) -> None:
    created = provider.create(server)
    docker_client.api.stop(server[RECORD]["containerId"], timeout=0)
    state = provider.read(created)
    assert state["healthy"] is False
    assert provider.changes(state, server)


@pytest.mark.parametrize("server", ["exit-1", "exit-0", "garbage"], indirect=True)
def test_a_failed_gate_stops_the_container_and_speaks_without_a_traceback(
    provider: GateProcess, server: Any, docker_client: docker.DockerClient
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        provider.create(server)
    text = failed.value.details()
    assert text.startswith(f"{server[RECORD]['containerName']} does not serve\n  cause:")
    assert "fix:" in text
    assert "Traceback" not in text
    state = docker_client.api.inspect_container(server[RECORD]["containerId"])["State"]
    assert not state["Running"], "a container that keeps restarting would keep the memory"
    assert not state["Restarting"]


@pytest.mark.parametrize("server", ["exit-137"], indirect=True)
def test_a_container_that_ended_by_itself_is_not_said_to_have_ignored_sigterm(
    provider: GateProcess, server: Any
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        provider.create(server)
    assert "The container is stopped and kept" in failed.value.details()


def test_the_process_ends_at_once_when_the_engine_ends_it() -> None:
    with GateProcess() as gate:
        assert gate.changes({}, {"containerId": "another"})
        gate.process.send_signal(signal.SIGINT)
        assert gate.process.wait(timeout=30) == -signal.SIGINT, "by the kernel, not by Python"

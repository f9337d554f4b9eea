"""The health gate as the engine sees it: its provider process, driven over gRPC.

The containers run the fake engine, in the CPU engine's image because that has a Python.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dill  # type: ignore[import-untyped]
import docker
import grpc  # type: ignore[import-untyped]
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from bootstrap.engine_image import IMAGE
from components.health_gate import HealthGateProvider

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
PROVIDER = base64.b64encode(dill.dumps(HealthGateProvider())).decode()


@pytest.fixture(scope="module")
def provider() -> Iterator[Any]:
    """The gate's provider in a process of its own, as the engine starts it."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi.dynamic"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        stub.Configure(provider_pb2.ConfigureRequest())
        yield stub
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture
def server(request: pytest.FixtureRequest, engine: docker.DockerClient) -> Iterator[dict[str, Any]]:
    """The gate's properties for a container with the fault that the test names."""
    container = engine.containers.run(
        IMAGE,
        ["/fake_engine.py", "model"],
        entrypoint="python",
        environment={"FAKE_FAULT": getattr(request, "param", "")},
        volumes={str(ROOT / "tests" / "fake_engine.py"): {"bind": "/fake_engine.py", "mode": "ro"}},
        ports={"8000/tcp": ("127.0.0.1", 0)},
        restart_policy={"Name": "always"},
        detach=True,
    )
    container.reload()
    published = container.ports.get("8000/tcp")
    port = published[0]["HostPort"] if published else "9"  # none any more if it has ended
    yield {
        "__provider": PROVIDER,
        "containerId": container.id,
        "containerName": container.name,
        "url": f"http://127.0.0.1:{port}/v1",
        "model": "model",
        "timeoutSeconds": "60",
        "stallSeconds": "60",
    }
    container.remove(force=True)


def struct(properties: dict[str, Any]) -> Any:
    return ParseDict(properties, Struct())


def create(provider: Any, properties: dict[str, Any]) -> dict[str, Any]:
    response = provider.Create(provider_pb2.CreateRequest(properties=struct(properties)))
    created: dict[str, Any] = MessageToDict(response.properties)
    return created


def changes(provider: Any, olds: dict[str, Any], news: dict[str, Any]) -> bool:
    request = provider_pb2.DiffRequest(id="gate", olds=struct(olds), news=struct(news))
    response = provider.Diff(request)
    assert not response.replaces, "a gate is asked again, never replaced"
    return bool(response.changes == provider_pb2.DiffResponse.DIFF_SOME)


def test_create_completes_when_the_model_has_answered(provider: Any, server: Any) -> None:
    created = create(provider, server)
    assert created["healthy"] is True
    assert created["readySeconds"] > 0
    assert created["startedAt"]


def test_an_answered_gate_is_unchanged_and_another_container_changes_it(
    provider: Any, server: Any
) -> None:
    created = create(provider, server)
    assert not changes(provider, created, server)
    assert changes(provider, created, {**server, "containerId": "another"})


def test_a_refresh_of_a_stopped_container_makes_the_next_up_ask_again(
    provider: Any, server: Any, engine: docker.DockerClient
) -> None:
    created = create(provider, server)
    engine.api.stop(server["containerId"], timeout=0)
    read = provider.Read(provider_pb2.ReadRequest(id="gate", properties=struct(created)))
    state = MessageToDict(read.properties)
    assert state["healthy"] is False
    assert changes(provider, state, server)


@pytest.mark.parametrize("server", ["exit-1", "exit-0", "garbage"], indirect=True)
def test_a_failed_gate_stops_the_container_and_speaks_without_a_traceback(
    provider: Any, server: Any, engine: docker.DockerClient
) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        create(provider, server)
    text = failed.value.details()
    assert "cause:" in text
    assert "mend:" in text
    assert "Traceback" not in text
    state = engine.api.inspect_container(server["containerId"])["State"]
    assert not state["Running"], "a container that restarts for ever would keep the memory"
    assert not state["Restarting"]

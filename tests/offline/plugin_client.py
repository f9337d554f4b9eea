"""A plugin as the engine sees it: a process started by its launcher, spoken to over gRPC."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.runtime import proto
from pulumi.runtime.proto import engine_pb2_grpc, provider_pb2_grpc, status_pb2

OURS = f"offline-test-{uuid4().hex[:8]}"
"""How all is named that these tests make: another process sweeps its own only."""

CONTAINER = "docker:index/container:Container"
IMAGE = "docker:index/remoteImage:RemoteImage"
VOLUME = "docker:index/volume:Volume"
NONE = proto.DiffResponse.DIFF_NONE
SOME = proto.DiffResponse.DIFF_SOME
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What the protocol writes for a value that a preview cannot know."""


class Engine(engine_pb2_grpc.EngineServicer):
    """The engine's side: it collects what a plugin logs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()

    def Log(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        with self._more:
            self.lines.append(request.message)
            self._more.notify_all()
        return Empty()

    def wait_for(self, line: str) -> None:
        with self._more:
            assert self._more.wait_for(lambda: line in self.lines, timeout=30), self.lines


class StartFailed(Exception):
    """What an init error carries: the resource exists, `id` and `state` are recorded."""

    def __init__(self, detail: Any) -> None:
        super().__init__(detail.reasons[0])
        self.id = detail.id
        self.state = MessageToDict(detail.properties)


class Plugin:
    """One running plugin, with Python values in and out."""

    def __init__(self, launcher: Path, type: str, config: dict[str, Any] | None = None) -> None:
        self.urn = f"urn:pulumi:test::test::component:a:B${type}::it"
        self.engine = Engine()
        server = grpc.server(ThreadPoolExecutor(4))
        engine_pb2_grpc.add_EngineServicer_to_server(self.engine, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self._server = server
        self.process = subprocess.Popen(
            [launcher, "--logtostderr", address], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.process.stdout.readline().strip()}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)
        self.stub.Configure(proto.ConfigureRequest(args=struct(config or {}), acceptSecrets=True))

    def close(self) -> None:
        self.channel.close()
        self.process.terminate()
        self.process.wait()
        self._server.stop(0)

    def check(self, **news: Any) -> dict[str, Any]:
        """The inputs as the engine records them. Raises ValueError with what was refused."""
        request = proto.CheckRequest(urn=self.urn, news=struct(news))
        reply = self._call(self.stub.Check, request)
        if reply.failures:
            raise ValueError("; ".join(failure.reason for failure in reply.failures))
        return dict(MessageToDict(reply.inputs))

    def create(self, *, preview: bool = False, **news: Any) -> tuple[str, dict[str, Any]]:
        request = proto.CreateRequest(
            urn=self.urn, properties=struct(self.check(**news)), preview=preview
        )
        reply = self._call(self.stub.Create, request)
        return reply.id, MessageToDict(reply.properties)

    def diff(self, state: dict[str, Any], **news: Any) -> Any:
        request = proto.DiffRequest(
            urn=self.urn, id="x", olds=struct(state), news=struct(self.check(**news))
        )
        return self._call(self.stub.Diff, request)

    def update(self, id: str, state: dict[str, Any], **news: Any) -> dict[str, Any]:
        request = proto.UpdateRequest(
            urn=self.urn, id=id, olds=struct(state), news=struct(self.check(**news))
        )
        return dict(MessageToDict(self._call(self.stub.Update, request).properties))

    def read(self, id: str, state: dict[str, Any], **inputs: Any) -> Any:
        request = proto.ReadRequest(
            urn=self.urn, id=id, properties=struct(state), inputs=struct(inputs)
        )
        return self._call(self.stub.Read, request)

    def cancel(self) -> None:
        self.stub.Cancel(Empty())

    def delete(self, id: str, state: dict[str, Any]) -> None:
        request = proto.DeleteRequest(urn=self.urn, id=id, properties=struct(state))
        self._call(self.stub.Delete, request)

    @staticmethod
    def _call(method: Any, request: Any) -> Any:
        try:
            return method(request)
        except grpc.RpcError as error:
            for key, value in error.trailing_metadata():
                if key == "grpc-status-details-bin":
                    detail = proto.ErrorResourceInitFailed()
                    status_pb2.Status.FromString(value).details[0].Unpack(detail)
                    raise StartFailed(detail) from None
            raise RuntimeError(error.details()) from None


Start = Callable[..., Plugin]


def struct(values: dict[str, Any]) -> Any:
    message = Struct()
    message.update(values)
    return message


def secret(value: Any) -> dict[str, Any]:
    """`value` as the protocol marks a secret."""
    return {
        "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
        "value": value,
    }

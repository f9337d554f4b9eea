"""Runs a dynamic provider in a separate process, as the Pulumi engine does."""

from __future__ import annotations

import base64
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import dill  # type: ignore[import-untyped]
import grpc  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict, ParseDict  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.health_gate import HealthGateProvider
from components.provider import Provider

ROOT = Path(__file__).resolve().parents[2]


class GateProcess:
    """A running provider, the health gate's unless another is given.

    Calls raise grpc.RpcError, whose `details()` are shown to the user. `engine` is the address that
    the engine gives to its plugins.
    """

    def __init__(self, provider: Provider | None = None, engine: str = "") -> None:
        self._provider = base64.b64encode(dill.dumps(provider or HealthGateProvider())).decode()
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "pulumi.dynamic", engine],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self._said: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        self._stub = provider_pb2_grpc.ResourceProviderStub(self._channel)
        self._stub.Configure(provider_pb2.ConfigureRequest())
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def said(self, text: str) -> float:
        """When the next line with this text was printed, in seconds since 1970."""
        while True:
            at, line = self._said.get(timeout=30)
            if text in line:
                return at

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put((time.time(), line))

    def create(self, properties: dict[str, Any]) -> dict[str, Any]:
        """The outputs of a gate that has passed."""
        request = provider_pb2.CreateRequest(properties=self._struct(properties))
        return dict(MessageToDict(self._stub.Create(request).properties))

    def read(self, properties: dict[str, Any]) -> dict[str, Any]:
        """The outputs after a refresh of these."""
        request = provider_pb2.ReadRequest(id="gate", properties=self._struct(properties))
        return dict(MessageToDict(self._stub.Read(request).properties))

    def changes(self, olds: dict[str, Any], news: dict[str, Any]) -> bool:
        """Whether the gate runs again."""
        request = provider_pb2.DiffRequest(
            id="gate", olds=self._struct(olds), news=self._struct(news)
        )
        response = self._stub.Diff(request)
        assert not response.replaces, "a gate is asked again, never replaced"
        return bool(response.changes == provider_pb2.DiffResponse.DIFF_SOME)

    def cancel(self) -> None:
        """What the engine does at Ctrl-C."""
        self._stub.Cancel(Empty())

    def _struct(self, properties: dict[str, Any]) -> Any:
        return ParseDict({"__provider": self._provider, **properties}, Struct())

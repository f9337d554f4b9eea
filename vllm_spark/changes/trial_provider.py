"""The resource provider of a trial run: it creates nothing, and needs no Docker and no plugin.

Pulumi's engine runs the program with it in place of the docker, command and Python plugins
(PULUMI_DEBUG_PROVIDERS). In a preview it answers with ids and outputs that follow from the inputs
alone, so two previews differ only where the program differs, and nothing is "not known yet".
"""
# ruff: noqa: ARG002  gRPC fixes the arguments

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.runtime import proto
from pulumi.runtime.proto import provider_pb2_grpc

PLUGINS = ("docker", "command", "pulumi-python")

CONTAINER = "docker:index/container:Container"

_IN_PLACE = {
    "destroyGraceSeconds", "init", "maxRetryCount", "memory", "memorySwap", "mustRun",
    "removeVolumes", "restart", "start",
}  # fmt: skip
"""What the docker plugin changes in a container that stays (terraform-provider-docker 4.5.0,
resource_docker_container.go: the properties without ForceNew)."""

_OUTPUTS = {
    "docker:index/remoteImage:RemoteImage": (("imageId", "repoDigest"), "name"),
    "pulumi-python:dynamic/spark:StateId": (("value",), None),
    "pulumi-python:dynamic/spark:Release": (("version",), None),
    "pulumi-python:dynamic/spark:Fetch": (("commit",), "what"),
}
"""Outputs by type, and the input that they follow from; None for a constant."""


@dataclass
class TrialProvider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves every type of resource. `seen` has the inputs of the created ones by URN."""

    seen: dict[str, dict[str, Any]] = field(default_factory=dict)

    def Handshake(self, request: Any, context: Any) -> Any:
        """Accept the engine."""
        return proto.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: Any) -> Any:
        """Accept the engine's address, which is not needed."""
        return Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        """Report a version."""
        return proto.PluginInfo(version="0.0.1")

    def CheckConfig(self, request: Any, context: Any) -> Any:
        """Accept any settings of a provider."""
        return proto.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        """Another address of a daemon or another login changes no resource."""
        return proto.DiffResponse(changes=proto.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        """Ask for previews, and for secrets as plain values, which are placeholders here."""
        return proto.ConfigureResponse(supportsPreview=True, acceptSecrets=False)

    def Check(self, request: Any, context: Any) -> Any:
        """Accept any inputs."""
        return proto.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:
        """Compare inputs with inputs."""
        old, new = MessageToDict(request.old_inputs), MessageToDict(request.news)
        changed = sorted(key for key in old.keys() | new.keys() if _differ(key, old, new))
        is_container = type_of(request.urn) == CONTAINER
        replaces = [key for key in changed if is_container and key not in _IN_PLACE]
        some = proto.DiffResponse.DIFF_SOME if changed else proto.DiffResponse.DIFF_NONE
        return proto.DiffResponse(changes=some, diffs=changed, replaces=replaces)

    def Create(self, request: Any, context: Any) -> Any:
        """Answer with an id and outputs. A trial run is always a preview."""
        inputs = MessageToDict(request.properties)
        self.seen[request.urn] = inputs
        return proto.CreateResponse(
            id=id_of(request.urn), properties=_struct(outputs_of(request.urn, inputs))
        )

    def Update(self, request: Any, context: Any) -> Any:
        """Answer with outputs."""
        inputs = MessageToDict(request.news)
        return proto.UpdateResponse(properties=_struct(outputs_of(request.urn, inputs)))

    def Cancel(self, request: Any, context: Any) -> Any:
        """Nothing runs that could be cancelled."""
        return Empty()


def id_of(urn: str) -> str:
    """The id of a resource: the same in every trial run."""
    return _hash(urn)


def outputs_of(urn: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A resource's outputs, which follow from its inputs."""
    names, source = _OUTPUTS.get(type_of(urn), ((), None))
    return {**inputs, **{name: _hash(inputs.get(source or "")) for name in names}}


@contextmanager
def served() -> Iterator[tuple[TrialProvider, str]]:
    """A provider that listens on loopback, and the value of PULUMI_DEBUG_PROVIDERS for it."""
    provider = TrialProvider()
    # As the SDK's own limit: the text of a script may be an input.
    size = 400 * 1024 * 1024
    options = [("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size)]
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=options)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield provider, ",".join(f"{plugin}:{port}" for plugin in PLUGINS)
    finally:
        server.stop(grace=None)


def _differ(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a property differs; the order of a list counts only in a command."""
    one, two = old.get(key), new.get(key)
    if key != "command" and isinstance(one, list) and isinstance(two, list):
        # The keys of an entry come in any order too.
        return sorted(map(_canonical, one)) != sorted(map(_canonical, two))
    return bool(one != two)


def type_of(urn: str) -> str:
    """The type of a resource, without those of its parents."""
    return urn.split("::", 3)[2].rpartition("$")[2]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _hash(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _struct(values: Mapping[str, Any]) -> Any:
    struct = Struct()
    struct.update(values)
    return struct

"""Pulumi's provider protocol, for a plugin that consists of a few `Resource` objects.

The SDK has helpers for this (`pulumi.provider.experimental`), but they show Python tracebacks to
the user, and they cannot report "created, but failed to start" as the official docker plugin does.
The protocol is small, so it is implemented here: messages, secrets, and errors as sentences.
"""
# ruff: noqa: ARG002  gRPC fixes the arguments

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, TypeVar

import grpc  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.runtime import proto
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2_grpc, status_pb2
from pulumi.runtime.rpc import _special_secret_sig, _special_sig_key, is_rpc_secret

from offline.plugins.resource import Refusal, Resource, Say, State, Unfinished

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Status:
    """The status object that grpc expects for an error with details."""

    code: Any
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def _explains(method: Method) -> Method:
    """Turn exceptions of `method` into errors that the Pulumi engine prints unchanged."""

    @functools.wraps(method)
    def explained(self: Plugin, request: Any, context: Any) -> Any:
        try:
            return method(self, request, context)
        except Unfinished as error:
            details = proto.ErrorResourceInitFailed(
                id=error.id,
                properties=_sealed(error.state, _properties(request)),
                reasons=[str(error)],
            )
            status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
            status.details.add().Pack(details)
            metadata = (("grpc-status-details-bin", status.SerializeToString()),)
            context.abort_with_status(_Status(grpc.StatusCode.UNKNOWN, str(error), metadata))
        except Refusal as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            context.abort(
                grpc.StatusCode.UNKNOWN,
                f"the offline {self.name} plugin has a bug at {where.filename}:{where.lineno}: "
                f"{type(error).__name__}: {error}",
            )

    return explained  # type: ignore[return-value]


class Plugin(provider_pb2_grpc.ResourceProviderServicer):
    """One provider of the Pulumi engine, serving the given resource types."""

    name: ClassVar[str]
    accepts_secrets: ClassVar[bool]
    """True: the engine sends secrets marked. False: it marks them itself in the results."""

    def __init__(self, version: str, resources: Iterable[Resource], engine_address: str) -> None:
        self.version = version
        self.resources = {resource.type: resource for resource in resources}
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(engine_address))

    def GetPluginInfo(self, request: Any, context: Any) -> proto.PluginInfo:
        """Report the version that the engine installed."""
        return proto.PluginInfo(version=self.version)

    @_explains
    def Configure(self, request: proto.ConfigureRequest, context: Any) -> proto.ConfigureResponse:
        """Read the provider's settings. It does not connect: a preview needs no daemon."""
        self.configure(plain(request.args))
        return proto.ConfigureResponse(acceptSecrets=self.accepts_secrets, supportsPreview=True)

    def configure(self, config: State) -> None:
        """Keep the provider's settings that the resources need."""

    @_explains
    def Check(self, request: proto.CheckRequest, context: Any) -> proto.CheckResponse:
        """Refuse properties that would be ignored; fill in the defaults."""
        resource = self._resource(request.urn)
        news = plain(request.news)
        short = resource.type.rpartition(":")[2]
        failures = [
            self.unknown(key, f"{short}.{path}") for key, path in resource.unknown_inputs(news)
        ]
        failures += [
            proto.CheckFailure(property=name, reason=f"{short} needs `{name}`")
            for name, rule in resource.inputs.items()
            if rule.required and news.get(name) in (None, "")
        ]
        inputs = Struct()
        inputs.CopyFrom(request.news)
        inputs.update(
            {
                name: rule.default
                for name, rule in resource.inputs.items()
                if rule.default is not None and news.get(name) is None
            }
        )
        return proto.CheckResponse(inputs=inputs, failures=failures)

    def unknown(self, key: str, path: str) -> proto.CheckFailure:
        """The failure for a property that this plugin does not know."""
        return proto.CheckFailure(
            property=key,
            reason=f"the offline {self.name} plugin does not know {path}, which it would silently "
            f"ignore; remove it, or use the official plugin (`pulumi plugin install resource "
            f"{self.name} {self.version}` where GitHub can be reached)",
        )

    @_explains
    def Diff(self, request: proto.DiffRequest, context: Any) -> proto.DiffResponse:
        """Compare with the last known state, not with the last inputs, so that drift shows."""
        resource = self._resource(request.urn)
        old, new = plain(request.olds), plain(request.news)
        changed = resource.changed(old, new)
        replaces = [name for name in changed if resource.inputs[name].replaces]
        return proto.DiffResponse(
            changes=proto.DiffResponse.DIFF_SOME if changed else proto.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and resource.deletes_before_replacing(old, new),
        )

    @_explains
    def Create(self, request: proto.CreateRequest, context: Any) -> proto.CreateResponse:
        """Create the resource; in a preview, return what is known of it."""
        resource = self._resource(request.urn)
        new = plain(request.properties)
        if request.preview:
            id, state = "", resource.planned(None, new)
        else:
            id, state = resource.create(new, self._say(request.urn))
        return proto.CreateResponse(id=id, properties=_sealed(state, request.properties))

    @_explains
    def Read(self, request: proto.ReadRequest, context: Any) -> proto.ReadResponse:
        """Read the real resource. The inputs follow its state, so that a diff can show drift."""
        found = self._resource(request.urn).read(request.id, plain(request.properties))
        if found is None:
            return proto.ReadResponse()
        id, state = found
        inputs = {name: state.get(name, value) for name, value in plain(request.inputs).items()}
        return proto.ReadResponse(
            id=id,
            properties=_sealed(state, request.properties),
            inputs=_sealed(inputs, request.inputs),
        )

    @_explains
    def Update(self, request: proto.UpdateRequest, context: Any) -> proto.UpdateResponse:
        """Change the resource in place; in a preview, return what is known of it."""
        resource = self._resource(request.urn)
        old, new = plain(request.olds), plain(request.news)
        if request.preview:
            state = resource.planned(old, new)
        else:
            state = resource.update(request.id, old, new, self._say(request.urn))
        return proto.UpdateResponse(properties=_sealed(state, request.news))

    @_explains
    def Delete(self, request: proto.DeleteRequest, context: Any) -> Any:
        """Remove the resource."""
        resource = self._resource(request.urn)
        resource.delete(request.id, plain(request.properties), self._say(request.urn))
        return Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        """Handle Ctrl-C."""
        self.cancel()
        return Empty()

    def cancel(self) -> None:
        """Cancel all running operations."""
        for resource in self.resources.values():
            resource.cancel()

    def _resource(self, urn: str) -> Resource:
        type = urn.split("::")[2].rpartition("$")[2]
        if type not in self.resources:
            raise Refusal(
                f"the offline {self.name} plugin does not know {type}, only "
                f"{', '.join(sorted(self.resources))}; use the official plugin (`pulumi plugin "
                f"install resource {self.name} {self.version}` where GitHub can be reached)"
            )
        return self.resources[type]

    def _say(self, urn: str) -> Say:
        def say(line: str) -> None:
            log = engine_pb2.LogRequest(
                severity=engine_pb2.INFO, message=line, urn=urn, ephemeral=True
            )
            with suppress(grpc.RpcError):  # an engine that stopped listening is no failure
                self._engine.Log(log)

        return say


RAW_STATE = "__pulumi_raw_state_delta"
"""How the official plugin gets from a state to Terraform's. It fits one form of the state only: the
official plugin crashes if it finds it in a state that we have changed, and does without it."""


def plain(struct: Any) -> Any:
    """A protobuf Struct as Python values: secrets decoded, whole numbers as int."""

    def value(of: Any) -> Any:
        if is_rpc_secret(of):
            return value(of["value"])
        if isinstance(of, dict):
            return {key: value(item) for key, item in of.items()}
        if isinstance(of, list):
            return [value(item) for item in of]
        return int(of) if isinstance(of, float) and of.is_integer() else of

    return value(MessageToDict(struct))


def _properties(request: Any) -> Any:
    return request.news if isinstance(request, proto.UpdateRequest) else request.properties


def _sealed(state: State, source: Any) -> Any:
    """`state` as a Struct in which everything derived from a secret in `source` is secret.

    A secret input is returned unchanged. A computed property is marked secret if any input is
    secret, because it may repeat the secret.
    """
    raw = MessageToDict(source)
    secrets = {name for name, value in raw.items() if _has_secret(value)}
    sealed = {}
    for name, value in state.items():
        if name == RAW_STATE:
            continue
        if name in secrets:
            sealed[name] = raw[name]
        elif secrets and name not in raw:
            sealed[name] = {_special_sig_key: _special_secret_sig, "value": value}
        else:
            sealed[name] = value
    struct = Struct()
    struct.update(sealed)
    return struct


def _has_secret(value: Any) -> bool:
    if is_rpc_secret(value):
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_secret(item) for item in items)


def serve(make: Callable[[str], Plugin]) -> NoReturn:
    """Run the plugin that `make` returns for an engine's address, until that engine ends.

    The Pulumi engine starts a plugin with the engine's address as the last argument and reads the
    plugin's port from the first line of output. It ends plugins with SIGINT, one after another;
    the default handler ends the process without a traceback. If the engine is killed, the plugin
    gets no signal, so it watches its parent process.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    engine = os.getppid()
    server = grpc.server(ThreadPoolExecutor(max_workers=64), options=_GRPC_CHANNEL_OPTIONS)
    plugin = make(sys.argv[-1])
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(plugin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    while os.getppid() == engine:
        server.wait_for_termination(timeout=2)
    plugin.cancel()
    os._exit(0)  # without waiting for threads: nobody reads their results

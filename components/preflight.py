"""What can be found wrong before a container is touched is found here, while the old one serves.

A dynamic provider like the health gate, and like it a record of something that was true once: that
the host could take this container. It runs when the container's declaration changes, and when a
refresh has found the container not running, since it is then about to be started.
"""

from __future__ import annotations

import errno
import os
import socket
import uuid
from typing import Any

import docker
import pulumi
from docker.errors import DockerException
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, ResourceProvider, UpdateResult

from components.plain_errors import PlainError


class PreflightProvider(ResourceProvider):
    """Checks on create and update; `read` notices that the container does not run any more."""

    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Check. PlainError leaves no resource behind, so the next up checks again."""
        return CreateResult(id_=f"preflight-{uuid.uuid4().hex[:8]}", outs=_check(props))

    def update(self, _id: str, _olds: dict[str, Any], props: dict[str, Any]) -> UpdateResult:
        """Check again, before the container is replaced or started."""
        return UpdateResult(outs=_check(props))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Changed if the container will be, or if it does not run."""
        changed = any(olds.get(key) != news[key] for key in news if not key.startswith("__"))
        return DiffResult(changes=changed or not olds.get("passed"))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """On refresh: is the container that passed still there and running?"""
        return ReadResult(id_, {**props, "passed": _runs(str(props["containerName"]))})


def _runs(name: str) -> bool:
    try:
        state = docker.from_env().api.inspect_container(name)["State"]
    except (DockerException, OSError):
        return False
    return bool(state["Running"])


def _check(props: dict[str, Any]) -> dict[str, Any]:
    name, bind, port = str(props["containerName"]), str(props["bind"]), int(props["port"])
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        raise PlainError(
            f"no Docker engine answers: {error}\n"
            "  mend: start it (`sudo systemctl start docker`), or see DOCKER_HOST"
        ) from None
    _check_port(client, name, bind, port)
    return {**props, "passed": True}


def _check_port(client: docker.DockerClient, name: str, bind: str, port: int) -> None:
    """PlainError if somebody other than the container of this name holds the port."""
    mend = "or give another port: pulumi config set --path vllm-spark:endpoint.port N"
    for container in client.api.containers():
        holder = container["Names"][0].removeprefix("/")
        held = {published.get("PublicPort") for published in container["Ports"]}
        if port in held and holder != name:
            raise PlainError(
                f"port {port} is held by container {holder} ({container['Image']})\n"
                f"  mend: docker stop {holder}, {mend}"
            )
        if port in held:
            return  # our own, which is about to be replaced
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        return  # the ports of another machine cannot be tried from here
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as trial:
        # Without it, connections that just closed would count as a holder.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((bind, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PlainError(
                    f"port {port} on {bind} is held by another process\n"
                    f"  mend: find it with `ss -ltnp 'sport = :{port}'` and stop it, {mend}"
                ) from None
            raise PlainError(
                f"this host cannot listen on {bind}:{port}: {error.strerror}\n"
                "  mend: vllm-spark:endpoint.bind must be an address of this host"
            ) from None


class Preflight(pulumi.dynamic.Resource, module="spark", name="Preflight"):
    """Complete when the host can take the container. `declared` is all that it is made from."""

    def __init__(
        self,
        resource_name: str,
        *,
        container_name: str,
        bind: str,
        port: int,
        declared: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            PreflightProvider(),
            resource_name,
            {
                "containerName": container_name,
                "bind": bind,
                # As text: numbers reach the provider as floats.
                "port": str(port),
                "declared": declared,
                "passed": None,
            },
            opts,
        )

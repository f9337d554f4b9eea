"""Whether a port of the host is free: by address, port and protocol, as Docker binds them.

A container on the host's network publishes no port; a vLLM there is known by its flags.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from vllm_spark.config.sections import Endpoint
from vllm_spark.deployment.serving import CONTAINER_PORT
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.problems import Problem

_OTHER = "or use another port: pulumi config set --path vllm-spark:endpoint.port N"

Address = IPv4Address | IPv6Address


Holder = tuple[str, str]
"""The name and the image of a container that has the port."""


def _published_by(listed: Iterable[Mapping[str, Any]], endpoint: Endpoint) -> Holder | None:
    """The container (as `docker ps` lists it) that publishes the endpoint's address and port."""
    for container in listed:
        for port in container["Ports"]:
            if port.get("PublicPort") != endpoint.port or port.get("Type", "tcp") != "tcp":
                continue
            if _overlap(ip_address(port.get("IP") or "0.0.0.0"), endpoint.bind):
                return container["Names"][0].removeprefix("/"), container["Image"]
    return None


def _on_the_hosts_network(
    inspected: Iterable[Mapping[str, Any]], endpoint: Endpoint
) -> Holder | None:
    """The running vLLM container that has the port without publishing it, by its own flags."""
    for container in inspected:
        config, network = container["Config"], container["HostConfig"]["NetworkMode"]
        command = [*(config["Entrypoint"] or ()), *(config["Cmd"] or ())]
        if network != "host" or not container["State"]["Running"]:
            continue
        if not any("vllm" in word for word in (config["Image"], *command)):
            continue
        with suppress(ConfigError):  # the command of a script
            _words, flags = EngineFlags.from_command(config["Cmd"] or ())
            if flags.get("port", CONTAINER_PORT) == endpoint.port:
                return container["Name"].removeprefix("/"), config["Image"]
    return None


def port_problem(
    listed: Iterable[Mapping[str, Any]],
    inspected: Iterable[Mapping[str, Any]],
    endpoint: Endpoint,
    leaving: Collection[str],
    *,
    try_here: bool,
) -> Problem | None:
    """What else holds the server's port. Containers in `leaving` will be gone and do not count.

    Containers are given as `docker ps` lists them, and as `docker inspect` shows them. `try_here`:
    the daemon runs on this machine, so this process can try to bind the port.
    """
    holder = _published_by(listed, endpoint) or _on_the_hosts_network(inspected, endpoint)
    if holder is None:
        return _trial(endpoint) if try_here else None
    name, image = holder
    if name in leaving:
        return None
    return Problem(
        f"port {endpoint.port} on {endpoint.bind}",
        f"is held by container {name} ({image})",
        f"docker stop {name}, {_OTHER}",
    )


def _overlap(one: Address, other: Address) -> bool:
    """Whether two sockets of one port exclude each other. Docker binds `::` for IPv6 alone."""
    one, other = _plain(one), _plain(other)
    if one.version != other.version:
        return False
    return one == other or one.is_unspecified or other.is_unspecified


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _trial(endpoint: Endpoint) -> Problem | None:
    """Try to listen there."""
    bind, port = _plain(endpoint.bind), endpoint.port
    family = socket.AF_INET6 if bind.version == 6 else socket.AF_INET
    with socket.socket(family) as trial:
        # Without it, recently closed connections would count as a holder.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            trial.bind((str(bind), port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return Problem(
                    f"port {port} on {bind}",
                    "is held by another process",
                    f"find it with `ss -ltnp 'sport = :{port}'` and stop it, {_OTHER}",
                )
            if error.errno == errno.EACCES:
                return None  # this process may not, but the Docker daemon may
            return Problem(
                f"{bind}:{port}",
                f"this host cannot listen there: {error.strerror}",
                "vllm-spark:endpoint.bind must be an address of this host",
            )
    return None

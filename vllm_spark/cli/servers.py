"""The servers in a stack's state, each with its container and its declaration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import click

from vllm_spark.cli.pulumi_command import read_state
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.records import record_of

RESOURCE = "pulumi-python:dynamic/spark:Preflight"


@dataclass(frozen=True)
class Server:
    """One server: its resource name, its container's name, and its last declaration.

    `variables` names the variables whose values are not in the settings.
    """

    name: str
    container: str
    settings: Settings
    variables: tuple[str, ...] = ()


def servers_of(stack: str, only: str | None = None) -> list[Server]:
    """All servers of the stack, or the one named `only`; empty if nothing is deployed.

    UsageError for a name that the stack does not have, SetupError if there is no state to read.
    """
    records = [
        record_of(resource["outputs"])
        for resource in read_state(stack).get("resources", [])
        if resource["type"] == RESOURCE
    ]
    servers = [
        Server(
            record["server"],
            record["containerName"],
            Settings.from_declared(record["settings"]),
            tuple(record["variables"]),
        )
        for record in records
    ]
    if only is None:
        return servers
    name = choose(only, [server.name for server in servers], stack)
    return [server for server in servers if server.name == name]


def one_server(stack: str, only: str | None) -> Server | None:
    """The stack's only server, or the one named `only`; None if nothing is deployed."""
    servers = servers_of(stack, only)
    if not servers:
        return None
    name = choose(only, [server.name for server in servers], stack)
    return next(server for server in servers if server.name == name)


def choose(only: str | None, names: Collection[str], stack: str) -> str:
    """The selected name. UsageError if it does not exist, or if several exist and none is given."""
    if only is None and len(names) == 1:
        return next(iter(names))
    if only in names:
        return str(only)
    listed = ", ".join(sorted(names)) or "none"
    asked = "give --server" if only is None else f"there is no server {only}"
    raise click.UsageError(f"stack {stack}: {asked}; its servers are: {listed}")

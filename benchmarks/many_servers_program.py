"""The `__main__.py` of a program with many servers: those of the stack, next to each other.

`many:servers` is how many. What one costs, and whether the next costs the same.
"""

from __future__ import annotations

import pulumi

from components.stack_config import read_stack
from components.vllm_server import VllmServer

settings, _ = read_stack()
first = settings.endpoint.port
for number in range(pulumi.Config("many").require_int("servers")):
    name = f"{settings.container.name}-{number}"
    # A server's parts have fixed names, so each server has a parent of a type of its own.
    place = pulumi.ComponentResource(f"many:index:Place{number}", f"place-{number}")
    VllmServer(
        f"vllm-{number}",
        settings=settings.model_copy(
            update={
                "container": settings.container.model_copy(update={"name": name}),
                "endpoint": settings.endpoint.model_copy(update={"port": first + number}),
            }
        ),
        opts=pulumi.ResourceOptions(parent=place),
    )

"""The `__main__.py` of a program with many servers, for benchmarks/unchanged.py.

`many:servers` is their number. All have the stack's settings, each with its own name and port.
"""

from __future__ import annotations

import pulumi

from components import VllmServer, VllmServerArgs
from components.stack_config import stack_args

settings = stack_args().settings
first = settings.endpoint.port
for number in range(pulumi.Config("many").require_int("servers")):
    name, port = f"{settings.container.name}-{number}", first + number
    changes = {
        "container": settings.container.model_copy(update={"name": name}),
        "endpoint": settings.endpoint.model_copy(update={"port": port}),
    }
    VllmServer(f"vllm-{number}", VllmServerArgs(settings=settings.model_copy(update=changes)))

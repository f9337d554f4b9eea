"""The moment between two servers: the old container is gone, the new one is not created yet.

What the old server held comes back some seconds after its container is gone, and a vLLM that starts
earlier finds too little memory free and ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from docker.errors import NotFound

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.host_memory import memory_needed, page_cache_in_the_way, shortage
from vllm_spark.deployment.tenants import Identity, foreign
from vllm_spark.docker_host.connection import connect, docker_errors
from vllm_spark.docker_host.host import DockerHost
from vllm_spark.errors import PreflightError
from vllm_spark.problems import Unmodelled

WAIT_SECONDS = 120.0
PROGRESS_SECONDS = 5.0
PAUSE_SECONDS = 0.5
RISE_GIB, SETTLED_SECONDS = 0.5, 5.0
"""With `allowMisfit`, the wait goes on as long as this much more is freed within this time."""

Say = Callable[[str], None]


def make_room(name: str, identity: Identity, settings: Settings, say: Say) -> None:
    """Return when the container `name` can be created. PreflightError if it never can.

    `say` gets a line of progress at a time. DockerError if the daemon does not answer.
    """
    with docker_errors():
        _clear_name(name, identity, say)
        if settings.state == "running":
            _wait_for_memory(name, settings, say)


def _clear_name(name: str, identity: Identity, say: Say) -> None:
    """Remove what an interrupted run of this stack has left under the name, unless it runs."""
    client = connect()
    try:
        found = client.api.inspect_container(name)
    except NotFound:
        return
    if (problem := foreign(found, identity)) is not None:
        raise PreflightError(str(problem))
    if found["State"]["Running"]:
        raise PreflightError(
            f"container {name} runs, and the state of this stack has lost it: an earlier run was "
            "killed before it could record the container\n"
            f"  fix: docker rm --force {name}, then repeat"
        )
    say("removing what an interrupted run has left under this name")
    client.api.remove_container(name, force=True)


def _wait_for_memory(name: str, settings: Settings, say: Say) -> None:
    """Return when the host has what the server needs. PreflightError if that takes too long."""
    needed = memory_needed(settings)
    if isinstance(needed, Unmodelled):
        return  # the preflight has said so
    host = DockerHost(name, settings.image.name)
    began = told = rose = time.monotonic()
    most = 0.0
    while True:
        try:
            memory = host.memory()
        except ValueError:
            return
        short = shortage(settings, needed, memory, {})
        if short is None:
            if (doubt := page_cache_in_the_way(settings, needed, memory)) is not None:
                say(doubt)
            return
        now = time.monotonic()
        if memory.available_gib > most + RISE_GIB:
            most, rose = memory.available_gib, now
        if settings.host.allow_misfit and now - rose > SETTLED_SECONDS:
            say(f"warning: {short.what}; host.allowMisfit lets it pass")
            return
        if now - began > WAIT_SECONDS:
            raise PreflightError(
                f"{name} is not started: the memory did not come back within {WAIT_SECONDS:.0f} s\n"
                f"  {short}"
            )
        if now - told >= PROGRESS_SECONDS:
            told = now
            say(
                f"waiting for memory: {memory.available_gib:.1f} of {needed:.1f} GiB "
                f"available, {now - began:.0f} of {WAIT_SECONDS:.0f} s"
            )
        time.sleep(PAUSE_SECONDS)

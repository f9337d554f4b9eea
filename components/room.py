"""The moment between two servers: the old container is gone, the new one is not made yet.

The container's `before_create` hook runs just then (Pulumi runs it for a first container as well).
What the old server held comes back some seconds after its container is gone, and a vLLM that starts
earlier finds too little memory free and ends.
"""

from __future__ import annotations

import asyncio
import time

import docker
import pulumi
from docker.errors import DockerException, NotFound
from requests.exceptions import RequestException

from components.host_checks import DockerHost
from components.plain_errors import PlainError
from engine.host_memory import HostMemory, memory_needed, page_cache_in_the_way, shortage
from engine.settings import Settings
from engine.tenants import foreign
from engine.unmodelled import Unmodelled

WAIT_SECONDS = 120.0
PROGRESS_SECONDS = 5.0
PAUSE_SECONDS = 0.5
RISE_GIB, SETTLED_SECONDS = 0.5, 5.0
"""A misfit that is allowed is waited for while so much more memory comes back within that time."""


async def make_room(name: str, stack: str, settings: Settings) -> None:
    """Return when there is room for the container `name`. PlainError if there will be none."""
    try:
        await asyncio.to_thread(_clear_name, name, stack)
        if settings.state == "running":
            await _wait_for_memory(name, settings)
    except (DockerException, RequestException) as error:
        raise PlainError(f"no Docker engine answers: {error}\n  mend: start it") from None


def _clear_name(name: str, stack: str) -> None:
    """Remove what a run of this stack that was broken off has left under our name."""
    client = docker.from_env()
    try:
        found = client.api.inspect_container(name)
    except NotFound:
        return
    if (problem := foreign(found, stack)) is not None:
        raise PlainError(str(problem))
    pulumi.log.info(f"{name}: removing what a run that was broken off has left under this name")
    client.api.remove_container(name, force=True)


async def _wait_for_memory(name: str, settings: Settings) -> None:
    """Return when the host has what the server needs. PlainError if it does not come to that."""
    needed = memory_needed(settings)
    if isinstance(needed, Unmodelled):
        return  # the preflight has said so
    host = await asyncio.to_thread(DockerHost, name, settings.image.name)
    began = told = rose = time.monotonic()
    most = 0.0
    while True:
        try:
            memory: HostMemory = await asyncio.to_thread(host.memory)
        except ValueError:
            return
        short = shortage(settings, needed, memory, {})
        if short is None:
            if (doubt := page_cache_in_the_way(settings, needed, memory)) is not None:
                pulumi.log.info(f"{name}: {doubt}")
            return
        now = time.monotonic()
        if memory.available_gib > most + RISE_GIB:
            most, rose = memory.available_gib, now
        if settings.host.allow_misfit and now - rose > SETTLED_SECONDS:
            pulumi.log.warn(f"{name}: {short.what}; host.allowMisfit lets it pass")
            return
        if now - began > WAIT_SECONDS:
            raise PlainError(
                f"{name} is not started: the memory did not come back within {WAIT_SECONDS:.0f} s\n"
                f"  {short}"
            )
        if now - told >= PROGRESS_SECONDS:
            told = now
            pulumi.log.info(
                f"{name}: waiting for memory: {memory.available_gib:.1f} of {needed:.1f} GiB "
                f"available, {now - began:.0f} of {WAIT_SECONDS:.0f} s"
            )
        await asyncio.sleep(PAUSE_SECONDS)

"""Waits between two servers: the old container is gone, the new one is not created yet.

The old server's memory becomes free some seconds after its container is gone. A vLLM that starts
earlier finds too little free memory and exits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from docker.errors import APIError, NotFound

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.host_memory import (
    gpu_shortages,
    memory_needed,
    on_cpu,
    page_cache_in_the_way,
    shortage,
)
from vllm_spark.deployment.tenants import Identity, foreign
from vllm_spark.docker_host.connection import connect, docker_errors
from vllm_spark.docker_host.host import DockerHost
from vllm_spark.docker_host.image_check import ask_image
from vllm_spark.docker_host.interruption import interrupted
from vllm_spark.errors import Interrupted, PreflightError
from vllm_spark.problems import Problem, Unmodelled

WAIT_SECONDS = 120.0
PROGRESS_SECONDS = 5.0
PAUSE_SECONDS = 0.5
RISE_GIB, SETTLED_SECONDS = 0.5, 5.0
"""If `allowMisfit` is set, keep waiting as long as this much more is freed within this time."""

Say = Callable[[str], None]


def make_room(name: str, identity: Identity, settings: Settings, say: Say) -> None:
    """Return when the container `name` can be created. PreflightError if it cannot.

    Each call of `say` reports one line of progress. DockerError if the daemon does not answer,
    Interrupted after Ctrl-C.
    """
    try:
        with docker_errors():
            _clear_name(name, identity, say)
            if settings.state == "running":
                _wait_for_memory(name, settings, say)
    except Interrupted:
        raise Interrupted(
            f"interrupted before {name} was created; nothing of this name runs\n"
            "  Repeat the command to create it."
        ) from None


def _clear_name(name: str, identity: Identity, say: Say) -> None:
    """Remove a container of this name that an interrupted run left behind, unless it runs."""
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
    """Return when the server has enough memory. PreflightError if that takes too long."""
    host = DockerHost(name, settings.image.name)
    began = told = rose = time.monotonic()
    most = 0.0
    while True:
        lack = _lack(host, settings, say)
        if lack is None:
            return
        problem, free_gib = lack
        now = time.monotonic()
        if free_gib > most + RISE_GIB:
            most, rose = free_gib, now
        if settings.host.allow_misfit and now - rose > SETTLED_SECONDS:
            say(f"warning: {problem.what}; host.allowMisfit lets it pass")
            return
        if now - began > WAIT_SECONDS:
            raise PreflightError(
                f"{name} is not started: the memory did not come back within {WAIT_SECONDS:.0f} s\n"
                f"  {problem}"
            )
        if now - told >= PROGRESS_SECONDS:
            told = now
            say(f"waiting for memory, {now - began:.0f} of {WAIT_SECONDS:.0f} s: {problem.what}")
        if interrupted.wait(PAUSE_SECONDS):
            raise Interrupted


def _lack(host: DockerHost, settings: Settings, say: Say) -> tuple[Problem, float] | None:
    """The shortage, and the GiB that are free; None if there is none, or if it is not known."""
    needed = memory_needed(settings)
    if isinstance(needed, Unmodelled):
        if on_cpu(settings):
            return None  # the preflight has reported it
        gpus = ask_image(settings, about_flags=False).gpus
        short = next(iter(gpu_shortages(settings, gpus, {})), None)
        return None if short is None else (short, sum(gpu.free_gib or 0.0 for gpu in gpus))
    try:
        memory = host.memory()
    except (ValueError, APIError):
        return None  # the host does not report its memory; the preflight has said so
    problem = shortage(settings, needed, memory, {})
    if problem is None and (doubt := page_cache_in_the_way(settings, needed, memory)) is not None:
        say(doubt)
    return None if problem is None else (problem, memory.available_gib)

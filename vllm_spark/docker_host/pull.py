"""Pulls an image with its progress shown, before Pulumi's docker plugin would pull it.

The official plugin pulls without a word. It pulls only what is missing, so after this it finds the
image in place. After Ctrl-C the plugin is not asked to pull.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from docker.errors import APIError, ImageNotFound

from vllm_spark.docker_host.connection import connect, docker_errors
from vllm_spark.docker_host.interruption import until_interrupted
from vllm_spark.memory.limits import GIB

LIMIT_SECONDS = 2 * 3600.0
"""20 GB over a slow line take long."""

PROGRESS_SECONDS = 10.0


def pull(name: str, login: Mapping[str, str] | None, say: Callable[[str], None]) -> None:
    """Pull the image `name` if the host does not have it; `say` reports progress, line by line.

    `login` has a username and a password; None stands for what `docker login` has stored. Nothing
    is raised if the registry refuses: the plugin then asks it again, and reports its answer.
    DockerUnavailable if the daemon does not answer, Interrupted after Ctrl-C.
    """
    with docker_errors():
        api: Any = connect().api
        try:
            api.inspect_image(name)
        except ImageNotFound:
            say(f"pulling {name}")
            try:
                events = api.pull(name, auth_config=login, stream=True, decode=True)
                until_interrupted(lambda: _follow(events, say))
            except APIError:
                return


def _follow(events: Iterable[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Say how much of the known layers is there, until the daemon has no more to tell."""
    sizes: dict[str, int] = {}
    loaded: dict[str, int] = {}
    told = time.monotonic()
    for event in events:
        layer, detail = event.get("id", ""), event.get("progressDetail") or {}
        if event.get("status") == "Downloading":
            sizes[layer], loaded[layer] = detail.get("total", 0), detail.get("current", 0)
        elif event.get("status") == "Download complete" and layer in sizes:
            loaded[layer] = sizes[layer]
        if sizes and time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            say(f"pulled {_gib(loaded)} of {_gib(sizes)} GiB known so far")


def _gib(sizes: Mapping[str, int]) -> str:
    return f"{sum(sizes.values()) / GIB:.1f}"

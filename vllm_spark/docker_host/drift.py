"""Inspects a server's container, and reports where it differs from its declaration."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from docker.errors import ImageNotFound, NotFound

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.drift import drift_of
from vllm_spark.docker_host.connection import UNANSWERED, connect

STARTED_AT_ONCE = timedelta(seconds=60)
"""The longest time from a container's creation to its first start. A later start was made by a
person, a reboot or Docker."""


def drift_lines(
    client: Any, settings: Settings, variables: Collection[str], container: dict[str, Any]
) -> list[str]:
    """A line for each difference, as in `drift_of`. Raises docker-py's exceptions."""
    made_from = client.api.inspect_image(container["Image"])
    try:
        image_id = client.api.inspect_image(settings.image.name)["Id"]
    except ImageNotFound:
        image_id = "(not on this host)"
    lines = drift_of(settings, variables, image_id, container, made_from)
    created, started = container["Created"], container["State"]["StartedAt"]
    if _moment(started) - _moment(created) > STARTED_AT_ONCE:
        lines.append(f"start: created {created[:19]}Z, started again {started[:19]}Z")
    return lines


def as_declared(name: str, settings: Settings, variables: Collection[str]) -> bool:
    """Whether the container exists, and runs unpaused if it should. Prints each difference by name.

    False as well if Docker could not be asked.
    """
    try:
        client: Any = connect()
        container = client.api.inspect_container(name)
    except NotFound:
        print(f"{name}: drift: the container is gone", flush=True)
        return False
    except (*UNANSWERED, OSError) as error:
        print(f"{name}: drift: unknown: {error}", flush=True)
        return False
    try:
        lines = drift_lines(client, settings, variables, container)
    except UNANSWERED as error:
        lines = [f"unknown: {error}"]
    for line in lines:
        print(f"{name}: drift: {line}", flush=True)
    state = container["State"]
    return settings.state == "stopped" or bool(state["Running"] and not state["Paused"])


def _moment(text: str) -> datetime:
    """Docker's timestamps, to the second."""
    return datetime.fromisoformat(text[:19])

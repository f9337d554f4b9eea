"""What the preflight does when it runs: find all that is in the way, stop who may be stopped."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from components.host_checks import DockerHost
from components.image_check import ask_image, flags_key
from components.plain_errors import PlainError
from engine.drift import drift_of
from engine.host_memory import memory_needed, shortage
from engine.problems import ConfigError, Problem, listing
from engine.review import misfits_of
from engine.settings import Settings
from engine.tenants import Tenant, foreign, in_the_way
from engine.unmodelled import Unmodelled

TAKEOVER_STOP_SECONDS = 30


def as_declared(props: dict[str, Any]) -> bool:
    """Whether the container runs; what differs from its declaration is said, by name."""
    name = str(props["containerName"])
    try:
        client: Any = docker.from_env()
        inspected = client.api.inspect_container(name)
    except NotFound:
        print(f"{name}: drift: the container is gone", flush=True)
        return False
    except (DockerException, OSError):
        return False
    try:
        settings = Settings.model_validate_json(props["declared"])
        made_from = client.api.inspect_image(inspected["Image"])
        image_id = client.api.inspect_image(settings.image.name)["Id"]
        lines = drift_of(settings, image_id, inspected, made_from)
    # An image that is gone, a Docker that falls silent, a later release's key.
    except (DockerException, RequestException, ValueError) as error:
        lines = [f"unknown: {error}"]
    for line in lines:
        print(f"{name}: drift: {line}", flush=True)
    return bool(inspected["State"]["Running"])


def check(props: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The resource's outputs if nothing is in the way; PlainError lists what is."""
    name, stack = str(props["containerName"]), str(props["stack"])
    settings = Settings.model_validate_json(props["declared"])
    try:
        found = _passed(name, stack, settings, str(props["imageId"]), before)
        return {**props, "passed": True, **found}
    except ConfigError as error:  # by what is known of the model now
        raise PlainError(str(error)) from None
    except APIError as error:
        raise PlainError(
            f"the Docker engine refuses: {error.explanation or error}\n"
            "  mend: see its log (`journalctl -u docker`), then repeat"
        ) from None
    except (DockerException, RequestException) as error:
        raise PlainError(
            f"no Docker engine answers: {error}\n"
            "  mend: start it (`sudo systemctl start docker`), or see DOCKER_HOST"
        ) from None


def _passed(
    name: str, stack: str, settings: Settings, image_id: str, before: dict[str, Any]
) -> dict[str, Any]:
    host = DockerHost(name, settings.image.name)
    tenants = host.tenants(settings)
    stopped = tenants if settings.gpu.takeover else []
    problems = [] if settings.gpu.takeover else in_the_way(tenants)
    ours = host.ours
    if ours is not None and (not_ours := foreign(ours, stack)) is not None:
        problems.append(not_ours)
    if (held := host.port_problem(settings.endpoint, stopped)) is not None:
        problems.append(held)
    # When the stack was reviewed, the cache may not have held the model's shape yet.
    problems += misfits_of(settings)
    problems += _memory_problems(name, settings, host, stopped)
    key = flags_key(settings, image_id)
    about_flags = before.get("flagsAccepted") != key
    if about_flags:
        print(f"{name}: asking the image's own vLLM about the flags", flush=True)
    answer = ask_image(settings, about_flags=about_flags)
    problems += answer.problems
    if problems:
        runs = ours is not None and ours["State"]["Running"]
        goes_on = f"; {name}, which runs, goes on untouched" if runs else ""
        raise PlainError(
            f"{name} cannot be started on this host as it is{goes_on}\n{listing(problems)}"
        )
    if answer.unknown:
        print(f"{name}: flags not checked: {answer.unknown}", flush=True)
    _take_over(name, host, stopped)
    return {"flagsAccepted": "" if answer.unknown else key}


def _memory_problems(
    name: str, settings: Settings, host: DockerHost, stopped: list[Tenant]
) -> list[Problem]:
    """Too little memory, even when those who leave have left; unknown is said, and no problem."""
    needed = memory_needed(settings)
    if isinstance(needed, Unmodelled):
        print(f"{name}: memory not checked: {needed.reason}", flush=True)
        return []
    try:
        memory = host.memory()
    except (ValueError, DockerException) as error:
        print(f"{name}: memory not checked: the host does not tell ({error})", flush=True)
        return []
    returned = host.returned(settings, stopped)
    known = {who: gib for who, gib in returned.items() if not isinstance(gib, Unmodelled)}
    short = shortage(settings, needed, memory, known)
    if short is None:
        return []
    unknown = [who for who in returned if who not in known]
    if unknown:
        print(
            f"{name}: memory not checked: nobody knows what {', '.join(unknown)} will give back; "
            f"besides, {short.what}",
            flush=True,
        )
        return []
    if settings.host.allow_misfit:
        print(f"{name}: memory: {short.what}; host.allowMisfit lets it pass", flush=True)
        return []
    return [short]


def _take_over(name: str, host: DockerHost, stopped: list[Tenant]) -> None:
    """Stop those on the GPU, now that nothing else is in the way."""
    for other in stopped:
        print(f"{name}: takes the GPU over: stopping {other}", flush=True)
        with suppress(NotFound):  # it has ended by itself
            host.client.api.stop(other.name, timeout=TAKEOVER_STOP_SECONDS)
        back = f"`docker start {other.name}` brings it back"
        if other.restarts_always:
            back += (
                ", and so does a restart of Docker, since its restart policy is `always`: "
                f"`docker update --restart=unless-stopped {other.name}`"
            )
        print(f"{name}: {other.name} is stopped; {back}", flush=True)

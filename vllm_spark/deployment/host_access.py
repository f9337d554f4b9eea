"""What a container is given of its host beyond Docker's defaults: warnings, and what cannot work.

Recipes for a Spark ask for some of it (RDMA devices, the host's network, a seccomp profile that
allows io_uring). A reader of a preview should see all of it at once, and be told where it is too
much: whoever controls the server then controls the host.
"""

from __future__ import annotations

from collections.abc import Iterator

from vllm_spark.config.container import Container, Mount
from vllm_spark.deployment.serving import CACHE_PATH
from vllm_spark.policy.rules import ROOT_CAPABILITIES, reaches_docker
from vllm_spark.problems import Problem
from vllm_spark.redaction import redacted

_OF_THE_HOST = ("/boot", "/dev", "/etc", "/proc", "/root", "/sys")
"""Folders of the host that hold its passwords, its devices or its kernel's switches."""


def mounts_in_the_way(container: Container) -> list[Problem]:
    """Mounts that would hide the cache, where the weights are."""
    return [
        Problem(
            "vllm-spark:container.mounts",
            f"{mount.container_path} is where vllm-spark:cache is mounted",
            "remove it: the cache is mounted anyway",
        )
        for mount in container.mounts
        if f"{CACHE_PATH}/".startswith(f"{mount.container_path}/")
    ]


def warnings_about(container: Container) -> list[Problem]:
    """What the container gets of the host, and secrets among the plain variables."""
    where = "vllm-spark:container"
    warnings = []
    if shared := list(_shared(container)):
        what = f"the server gets more of the host than Docker gives: {', '.join(shared)}"
        fix = "keep what the model's recipe needs, and remove the rest"
        warnings.append(Problem(where, what, fix))
    if control := list(_control(container)):
        what = f"whoever controls the server controls the host: {', '.join(control)}"
        warnings.append(Problem(where, what, "remove it; no server needs it to answer"))
    warnings += [
        Problem(
            f"{where}.environment.{name}",
            "looks like a secret, and is readable in the config file, the state and previews",
            "remove it, then pulumi config set --secret --path vllm-spark:secretEnvironment."
            f"{name}",
        )
        for name, value in container.environment.items()
        if value and redacted(f"{name}={value}") != f"{name}={value}"
    ]
    return warnings


def _shared(container: Container) -> Iterator[str]:
    if container.network == "host":
        yield "its network"
    yield from (f"device {host}" for host, _, _ in container.device_mappings)
    yield from (f"capability {name}" for name in container.capabilities.add)
    yield from (one for one in container.security_options if one.endswith("=unconfined"))


def _control(container: Container) -> Iterator[str]:
    for name in container.capabilities.add:
        if name.removeprefix("CAP_") in ROOT_CAPABILITIES:
            yield f"capability {name}"
    yield from (f"mount {mount.source}" for mount in container.mounts if _is_of_the_host(mount))


def _is_of_the_host(mount: Mount) -> bool:
    path = mount.host_path
    return path is not None and (path in _OF_THE_HOST or reaches_docker(path))

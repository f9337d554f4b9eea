"""Finds the other containers on the GPU, from their `docker inspect`.

One big model fills a Spark: a second server fails after minutes, or takes the first one down with
it. A process outside of Docker shows only as memory that is not available.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_spark.deployment.gpus import Devices
from vllm_spark.problems import Problem

CHECK_LABEL = "vllm-spark.check"
"""The label of containers that check an image: they end by themselves."""

STACK_LABEL = "vllm-spark.stack"
SERVER_LABEL = "vllm-spark.server"
VERSION_LABEL = "vllm-spark.version"
"""The release of vllm-spark that declared the container."""

COMMIT_LABEL = "vllm-spark.commit"
"""The commit of the model's files that the server was started with."""


IDENTITY_LABELS = ("vllm-spark.project", STACK_LABEL, SERVER_LABEL, "vllm-spark.state-id")


@dataclass(frozen=True)
class Identity:
    """The owner of a container. `state_id` is a random id in the stack's state.

    Two checkouts may have stacks of the same name; only this id tells them apart.
    """

    project: str
    stack: str
    server: str
    state_id: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels that identify the owner, on every container of the server."""
        values = (self.project, self.stack, self.server, self.state_id)
        return dict(zip(IDENTITY_LABELS, values, strict=True))

    def owns(self, inspected: Mapping[str, Any]) -> bool:
        """Whether this server, of this state, created the container."""
        found = inspected["Config"]["Labels"] or {}
        return all(found.get(label) == value for label, value in self.labels.items())

    def declared_beside(self, inspected: Mapping[str, Any]) -> bool:
        """Whether the container is another server of the same program, which should run too."""
        found = inspected["Config"]["Labels"] or {}
        shared = {label: value for label, value in self.labels.items() if label != SERVER_LABEL}
        return all(found.get(label) == value for label, value in shared.items())


@dataclass(frozen=True)
class Tenant:
    """A running container that uses a GPU."""

    name: str
    image: str
    owner: str
    """Its creator, as the end of a sentence; empty if its labels do not name one."""
    restarts_always: bool
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(filter(None, (self.image, self.owner)))})"


def tenant(inspected: Mapping[str, Any]) -> Tenant:
    """The tenant that a container's inspection describes."""
    config = inspected["Config"]
    return Tenant(
        name=inspected["Name"].removeprefix("/"),
        image=config["Image"],
        owner=_owner(config["Labels"] or {}),
        restarts_always=inspected["HostConfig"]["RestartPolicy"]["Name"] == "always",
        command=(*(config["Entrypoint"] or ()), *(config["Cmd"] or ())),
    )


def _owner(labels: Mapping[str, str]) -> str:
    if stack := labels.get(STACK_LABEL):
        return f"of stack {stack}"
    if project := labels.get("com.docker.compose.project"):
        service = labels.get("com.docker.compose.service", "")
        return f"service {service} of compose project {project}"
    return ""


def foreign(inspected: Mapping[str, Any], identity: Identity) -> Problem | None:
    """The problem of a container with the server's name that this stack did not create."""
    if identity.owns(inspected):
        return None
    found = tenant(inspected)
    return Problem(
        f"container {found.name}",
        f"exists, and the state of this stack does not know it: {found}",
        f"docker rm --force {found.name}, or give this stack's another name: pulumi config set "
        "--path vllm-spark:container.name NAME",
    )


def devices_of(inspected: Mapping[str, Any]) -> Devices:
    """The GPUs that a container keeps; none for an image check, which ends by itself."""
    if CHECK_LABEL in (inspected["Config"]["Labels"] or {}):
        return Devices()
    return Devices.of_container(inspected)


def looks_like_a_server(inspected: Mapping[str, Any]) -> bool:
    """Whether a container is meant to keep running: it publishes ports, restarts, or runs vLLM."""
    host, found = inspected["HostConfig"], tenant(inspected)
    restarts = host["RestartPolicy"]["Name"] not in ("", "no")
    return bool(host.get("PortBindings")) or restarts or "vllm" in " ".join(found.command)


def in_the_way(tenants: list[Tenant]) -> list[Problem]:
    """A problem for each other container on the GPU."""
    return [
        Problem(
            "GPU",
            f"container {found} runs on it, and one GPU serves one big model",
            f"docker stop {found.name}; or let this stack stop it: pulumi config set --path "
            "vllm-spark:gpu.takeover true; or, where there is room for both, add "
            f"{found.name} to vllm-spark:gpu.alongside",
        )
        for found in tenants
    ]

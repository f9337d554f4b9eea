"""Who else is on the GPU? Told from what `docker inspect` says of the other containers.

One big model fills a Spark, and a second server on it fails after minutes, or takes the first one
down with it. What a process outside of Docker holds shows only as memory that is not available.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_spark.problems import Problem

CHECK_LABEL = "vllm-spark.check"
"""On the containers in which an image is asked something: they end by themselves."""

STACK_LABEL = "vllm-spark.stack"
SERVER_LABEL = "vllm-spark.server"
VERSION_LABEL = "vllm-spark.version"
"""The release of vllm-spark that declared the container."""

COMMIT_LABEL = "vllm-spark.commit"
"""The commit of the model's files that the server was started with."""


@dataclass(frozen=True)
class Identity:
    """Whose a container is. `state_id` is a random id that the stack's state keeps.

    Two checkouts may have stacks of one name; only the id in the state tells them apart.
    """

    project: str
    stack: str
    server: str
    state_id: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels that say it, on every container of the server."""
        return {
            "vllm-spark.project": self.project,
            STACK_LABEL: self.stack,
            SERVER_LABEL: self.server,
            "vllm-spark.state-id": self.state_id,
        }

    def owns(self, inspected: Mapping[str, Any]) -> bool:
        """Whether this server, of this very state, made the container."""
        found = inspected["Config"]["Labels"] or {}
        return all(found.get(label) == value for label, value in self.labels.items())

    def declared_beside(self, inspected: Mapping[str, Any]) -> bool:
        """Whether the container is another server of the same program: both are wanted."""
        found = inspected["Config"]["Labels"] or {}
        shared = {label: value for label, value in self.labels.items() if label != SERVER_LABEL}
        return all(found.get(label) == value for label, value in shared.items())


@dataclass(frozen=True)
class Tenant:
    """A running container that was given a GPU."""

    name: str
    image: str
    owner: str
    """Who made it, as the end of a sentence; empty if its labels do not tell."""
    restarts_always: bool
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(filter(None, (self.image, self.owner)))})"


def tenant(inspected: Mapping[str, Any]) -> Tenant:
    """A container's inspection, as far as it concerns others."""
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
    """That a container under the server's own name was not made by this stack."""
    if identity.owns(inspected):
        return None
    found = tenant(inspected)
    return Problem(
        f"container {found.name}",
        f"exists, and the state of this stack does not know it: {found}",
        f"docker rm --force {found.name}, or give this stack's another name: pulumi config set "
        "--path vllm-spark:container.name NAME",
    )


def has_gpu(inspected: Mapping[str, Any]) -> bool:
    """Whether a container was given an NVIDIA GPU to keep, in any of Docker's ways."""
    if CHECK_LABEL in (inspected["Config"]["Labels"] or {}):
        return False
    host = inspected["HostConfig"]
    for request in host.get("DeviceRequests") or ():
        capabilities = {word for group in request.get("Capabilities") or () for word in group}
        devices = " ".join(request.get("DeviceIDs") or ())
        if "gpu" in capabilities or request.get("Driver") == "nvidia" or "nvidia.com/" in devices:
            return True
    if any("/dev/nvidia" in device["PathOnHost"] for device in host.get("Devices") or ()):
        return True
    # NVIDIA's images all set this variable; it means something to NVIDIA's runtime alone.
    variables = dict(entry.partition("=")[::2] for entry in inspected["Config"]["Env"] or ())
    shown = variables.get("NVIDIA_VISIBLE_DEVICES", "void")
    return bool(host.get("Runtime") == "nvidia" and shown not in ("", "void", "none"))


def in_the_way(tenants: list[Tenant]) -> list[Problem]:
    """That somebody else is on the GPU, a problem each."""
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

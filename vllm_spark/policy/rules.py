"""The rules of the policy pack: what each demands, how a container breaks it, and the fix.

A rule looks at one declared container and returns a sentence for each way in which it is broken. No
sentence holds the value of an environment variable, because Pulumi gives a policy pack secrets in
plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from posixpath import normpath

from vllm_spark.images import vllm_version
from vllm_spark.memory.limits import default_utilization
from vllm_spark.policy.declared import DeclaredContainer
from vllm_spark.redaction import redacted

Options = Mapping[str, float]
"""A rule's own settings in the policy pack's config file."""

Check = Callable[[DeclaredContainer, Options], list[str]]


@dataclass(frozen=True)
class Rule:
    """A rule. Its level is mandatory or advisory, unless the team sets another one."""

    demand: str
    fix: str
    check: Check
    mandatory: bool = True
    options: Options = field(default_factory=dict)
    """Its settings, with their defaults."""


ROOT_CAPABILITIES = {
    "ALL", "BPF", "DAC_READ_SEARCH", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO",
}  # fmt: skip
"""Capabilities that let a process in a container become root on the host (capabilities(7))."""

_SOCKETS = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/var/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BIND = "set vllm-spark:endpoint.bind to 127.0.0.1"


def _open_endpoint(container: DeclaredContainer, _: Options) -> list[str]:
    has_key = (
        "VLLM_API_KEY" in (container.variables or ())
        or "VLLM_API_KEY" in container.environment
        or "api-key" in container.flags
    )
    # A variable that is not known yet may be the key, unless all of them are told by name.
    unknown = container.variables is None and None in container.envs
    if has_key or unknown:
        return []
    return [
        f"{where} is open to other machines, without a key" for where in container.open_addresses
    ]


def _plain_http(container: DeclaredContainer, _: Options) -> list[str]:
    if "ssl-certfile" in container.flags:
        return []
    return [f"{place} serves other machines without TLS" for place in container.open_addresses]


def _moving_tag(container: DeclaredContainer, _: Options) -> list[str]:
    image, reference = container.image, container.reference
    if image is None or image.startswith("sha256:"):
        return []
    if reference is not None and not reference.moves:
        return []
    return [f"the image {image} may be another one at the next pull"]


def _host_network(container: DeclaredContainer, _: Options) -> list[str]:
    return ["it runs on the host's network"] if container.network_mode == "host" else []


def _unconfined(container: DeclaredContainer, _: Options) -> list[str]:
    found = ["it is privileged"] if container.privileged else []
    given = container.capabilities.adds if container.capabilities else []
    names = {name.upper().removeprefix("CAP_") for name in given if name}
    found += [f"it has the capability {name}" for name in sorted(names & ROOT_CAPABILITIES)]
    for option in container.security_opts:
        # Docker itself adds this label to a container in the host's IPC namespace.
        ours = option == "label=disable" and container.ipc_mode == "host"
        if option and re.search(r"[:=](unconfined|disable)$", option) and not ours:
            found.append(f"it runs with {option}")
    for what, mode in (("processes", container.pid_mode), ("users", container.userns_mode)):
        if mode == "host":
            found.append(f"it shares the host's {what}")
    return found


def _docker_socket(container: DeclaredContainer, _: Options) -> list[str]:
    return [f"it mounts {path}" for path in container.host_paths if reaches_docker(path)]


def reaches_docker(path: str) -> bool:
    """Whether a mount of this path of the host holds the socket of its container daemon."""
    place = PurePosixPath(normpath(path))
    # Of a daemon without root: /run/user/1000/docker.sock.
    return place.name in {PurePosixPath(socket).name for socket in _SOCKETS} or any(
        PurePosixPath(socket).is_relative_to(place) for socket in _SOCKETS
    )


def _plain_secret(container: DeclaredContainer, _: Options) -> list[str]:
    if container.variables is None:
        return []
    plain = {
        name: f"{name}={value}"
        for name, value in container.environment.items()
        if not container.variables.get(name, False)
    }
    return [
        f"the variable {name} looks like a secret, and is readable in the state"
        for name, entry in plain.items()
        if redacted(entry) != entry
    ]


def _remote_code(container: DeclaredContainer, _: Options) -> list[str]:
    flags = container.flags
    pinned = _COMMIT.fullmatch(str(flags.get("revision")))
    if flags.get("trust-remote-code") is not True or pinned:
        return []
    return ["it runs the code that the model's repository has on the day of the download"]


def _memory_share(container: DeclaredContainer, options: Options) -> list[str]:
    share = container.flags.get("gpu-memory-utilization")
    reference = container.reference
    if share is None and container.runs_vllm and reference is not None and not reference.is_cpu:
        share = default_utilization(vllm_version(reference))
    if not isinstance(share, int | float) or share <= options["limit"]:
        return []
    return [f"gpu-memory-utilization is {share}, and the limit is {options['limit']}"]


RULES: Mapping[str, Rule] = {
    "open-endpoint": Rule(
        "a server that other machines reach needs an API key",
        f"pulumi config set --secret vllm-spark:apiKey; or {_BIND}",
        _open_endpoint,
    ),
    "plain-http": Rule(
        "a server that other machines reach needs TLS",
        f"{_BIND}, and put a reverse proxy with TLS in front of it",
        _plain_http,
        mandatory=False,
    ),
    "moving-tag": Rule(
        "an image needs a tag that stays, or a digest",
        "take the tag of a release, or add the digest that `docker images --digests` shows",
        _moving_tag,
    ),
    "host-network": Rule(
        "a container needs a network of its own",
        "remove vllm-spark:container.network; Docker then publishes the port",
        _host_network,
    ),
    "unconfined": Rule(
        "a container must be confined by Docker",
        "remove it from vllm-spark:container.securityOptions or capabilities; a GPU needs none",
        _unconfined,
    ),
    "docker-socket": Rule(
        "a container must not command the Docker daemon, which is root on the host",
        "remove it from vllm-spark:container.mounts",
        _docker_socket,
    ),
    "plain-secret": Rule(
        "a secret must not be a plain environment variable",
        "remove it, then pulumi config set --secret --path vllm-spark:secretEnvironment.NAME",
        _plain_secret,
    ),
    "remote-code": Rule(
        "trust-remote-code needs a model.revision that is a commit",
        "set vllm-spark:model.revision to a commit that you have read, or remove trust-remote-code",
        _remote_code,
    ),
    "memory-share": Rule(
        "gpu-memory-utilization has an upper limit",
        "lower vllm-spark:engine.gpu-memory-utilization",
        _memory_share,
        mandatory=False,
        options={"limit": 0.9},
    ),
}  # fmt: skip
"""Every rule by its name, as exceptions and the policy pack's config file write it."""


def rule_name(text: str) -> str:
    """The name of a rule. ValueError if there is no such rule."""
    if text not in RULES:
        raise ValueError(f"{text!r} is not a rule of the policy pack")
    return text

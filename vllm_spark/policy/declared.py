"""One container as a program declares it: the inputs of `docker:index/container:Container`.

The rules read these inputs and not the config, so that they hold for every program. In a preview
some inputs are not known yet. They arrive as None and count as not set; in the update, which asks
again before it touches anything, they are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import ImageReference

EVERY_ADDRESS = "0.0.0.0"


def _list(value: object) -> object:
    return [] if value is None else value


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)


class Port(_Declared):
    """A published port. Docker publishes on every address if none is given."""

    external: float | None = None
    ip: str | None = None

    @property
    def address(self) -> str:
        """The address that it listens on."""
        return self.ip or EVERY_ADDRESS


class Volume(_Declared):
    """A volume; `host_path` is None for one that Docker manages."""

    host_path: str | None = None


class Mount(_Declared):
    """A mount; `source` is a path if the type is bind."""

    type: str | None = None
    source: str | None = None


class Capabilities(_Declared):
    """What `--cap-add` gives."""

    adds: Annotated[list[str | None], BeforeValidator(_list)] = []


class DeclaredContainer(_Declared):
    """A container's inputs, as far as a rule reads them.

    `variables` tells of each environment variable whose value does not come from the config whether
    it is secret. It is None for a container that no `VllmServer` declares: Pulumi does not tell a
    policy pack which values are secret.
    """

    image: str | None = None
    command: Annotated[list[str | None], BeforeValidator(_list)] = []
    envs: Annotated[list[str | None], BeforeValidator(_list)] = []
    ports: Annotated[list[Port], BeforeValidator(_list)] = []
    volumes: Annotated[list[Volume], BeforeValidator(_list)] = []
    mounts: Annotated[list[Mount], BeforeValidator(_list)] = []
    capabilities: Capabilities | None = None
    security_opts: Annotated[list[str | None], BeforeValidator(_list)] = []
    privileged: bool | None = None
    publish_all_ports: bool | None = None
    network_mode: str | None = None
    ipc_mode: str | None = None
    pid_mode: str | None = None
    userns_mode: str | None = None
    variables: Mapping[str, bool | None] | None = None

    @classmethod
    def of(
        cls, inputs: Mapping[str, Any], variables: Mapping[str, bool | None] | None
    ) -> DeclaredContainer:
        """Read the inputs as Pulumi has them, with None for what is not known yet."""
        return cls.model_validate({**inputs, "variables": variables})

    @cached_property
    def flags(self) -> EngineFlags:
        """vLLM's flags in the command; none if the command is not one of vLLM."""
        try:
            return EngineFlags.from_command([word for word in self.command if word is not None])[1]
        except ConfigError:
            return EngineFlags()

    @cached_property
    def reference(self) -> ImageReference | None:
        """The parts of the image's name; None if it is not known yet, or is no name."""
        try:
            return ImageReference.parse(self.image) if self.image else None
        except ConfigError:
            return None

    @property
    def runs_vllm(self) -> bool:
        """Whether it is a vLLM server, and not for example the proxy in front of one."""
        known_image = self.reference is not None and self.reference.family != "other"
        return self.variables is not None or known_image or self.command[:2] == ["vllm", "serve"]

    @cached_property
    def environment(self) -> dict[str, str]:
        """The variables whose values are known, secret or not."""
        return dict(entry.partition("=")[::2] for entry in self.envs if entry is not None)

    @property
    def open_addresses(self) -> list[str]:
        """Where other machines reach vLLM: addresses, with their ports if Docker publishes them.

        On the host's network Docker publishes nothing; there, vLLM's own flags decide.
        """
        if not self.runs_vllm:
            return []
        if self.network_mode == "host":
            listens = str(self.flags.get("host") or EVERY_ADDRESS)
            return [] if _is_loopback(listens) else [listens]
        found = [
            f"{port.address}:{port.external:.0f}" if port.external else port.address
            for port in self.ports
            if not _is_loopback(port.address)
        ]
        return [*found, *([EVERY_ADDRESS] if self.publish_all_ports else [])]

    @property
    def host_paths(self) -> list[str]:
        """The host's paths that it sees."""
        binds = [mount.source for mount in self.mounts if mount.type in (None, "bind")]
        return [path for path in (*(one.host_path for one in self.volumes), *binds) if path]


def _is_loopback(address: str) -> bool:
    try:
        read = ip_address(address)
    except ValueError:
        return address == "localhost"
    mapped = read.ipv4_mapped if isinstance(read, IPv6Address) else None
    return (mapped or read).is_loopback

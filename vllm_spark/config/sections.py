"""The objects of a stack's config, each with the rules of its own keys.

A field's description names the valid values. An error about the field ends with it, and
docs/config.md is generated from it, so each rule is written once.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, model_validator
from pydantic.alias_generators import to_camel

from vllm_spark.config.values import (
    DOCKER_NAME,
    HOST_PATH,
    LONGEST_REASON,
    DockerName,
    ImageName,
    ModelId,
    Reason,
    Release,
    Revision,
    RuleName,
    ServedName,
)
from vllm_spark.errors import ConfigError
from vllm_spark.images import ImageReference, Version, vllm_version
from vllm_spark.policy.rules import RULES
from vllm_spark.problems import Problem

NAMESPACE = "vllm-spark"
"""Prefix of every config key. It is fixed, so that a copy of this project may have any name."""

LONGEST_START = 86_400
"""Seconds: the upper limit of every time limit of the health gate."""


class Section(BaseModel):
    """Base of every config object: camelCase keys, unknown keys refused, immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=False
    )


class Model(Section):
    """The model to serve."""

    id: ModelId = Field(description="a repository on the Hugging Face Hub, as owner/name")
    revision: Revision | None = Field(
        None, description="a commit, tag or branch of that repository; main if not set"
    )
    served_name: ServedName | None = Field(
        None, description="the model name in client requests, one word; the id if not set"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"id": value} if isinstance(value, str) else value


class Image(Section):
    """The image that serves the model."""

    name: ImageName = Field(description="an image name with a tag or a digest")
    vllm_version: Release | None = Field(
        None,
        description="the vLLM release in the image, such as 0.28.0, for previews of an image whose "
        "tag does not show it",
    )
    registry_user: str = Field(
        "$oauthtoken",
        description="the registry user that vllm-spark:registryPassword belongs to; nvcr.io's user "
        "if not set",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @property
    def reference(self) -> ImageReference:
        """The parts of the name."""
        return ImageReference.parse(self.name)

    @property
    def version(self) -> Version | None:
        """The vLLM release in the image; None if neither the config nor the tag shows it."""
        declared = self.vllm_version
        return Version.parse(declared) if declared else vllm_version(self.reference)


class Cache(Section):
    """Where weights are kept between containers: a folder on the host, or a Docker volume."""

    host_path: str | None = Field(None, description="the absolute path of a folder on the host")
    volume: str | None = Field(None, description="the name of a Docker volume")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        """Checks the fields too: after a failed check of a field, this one would not run."""
        path, volume = self.host_path, self.volume
        problems = []
        if (path is None) == (volume is None):
            what = "has neither hostPath nor volume" if path is None else "has hostPath and volume"
            fix = "set hostPath or volume, and only one of them"
            problems.append(Problem(f"{NAMESPACE}:cache", what, fix))
        if path is not None and not re.fullmatch(HOST_PATH, path):
            what = f"{path!r} is not a valid path"
            fix = "use the absolute path of a folder on the host, such as /opt/hf"
            problems.append(Problem(f"{NAMESPACE}:cache.hostPath", what, fix))
        if volume is not None and not re.fullmatch(DOCKER_NAME, volume):
            what = f"{volume!r} is not a valid volume name"
            fix = "use the name of a Docker volume, such as vllm-spark-cache"
            problems.append(Problem(f"{NAMESPACE}:cache.volume", what, fix))
        if problems:
            raise ConfigError(problems)
        return self

    @property
    def source(self) -> str:
        """The part before the colon in `docker run --volume`."""
        return self.host_path or self.volume or ""


class Endpoint(Section):
    """Where the server listens on the host."""

    bind: IPvAnyAddress = Field(
        IPv4Address("127.0.0.1"), description="the host's IP address to listen on"
    )
    port: int = Field(
        8000, ge=1, le=65535, description="the host's port to listen on, from 1 to 65535"
    )
    open: bool = Field(False, description="true to let other machines in without an API key")

    @property
    def is_reachable_from_elsewhere(self) -> bool:
        """Whether other machines may reach the server."""
        mapped = self.bind.ipv4_mapped if isinstance(self.bind, IPv6Address) else None
        return not (mapped or self.bind).is_loopback

    @property
    def base_url(self) -> str:
        """The base URL of the API, for clients on the host."""
        everywhere = self.bind.is_unspecified
        host = ("::1" if self.bind.version == 6 else "127.0.0.1") if everywhere else str(self.bind)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"


class Gpu(Section):
    """What to do about other containers on the GPU."""

    takeover: bool = Field(
        False, description="true to stop them after all other checks have passed"
    )
    alongside: list[DockerName] = Field(
        [], description="a list of containers that may use the GPU at the same time"
    )


class Health(Section):
    """The time limits of the health gate, and what happens when it fails.

    Only `make up` reads `revertOnFailure`: Pulumi itself has no rollback.
    """

    timeout_seconds: int = Field(
        3600,
        ge=1,
        le=LONGEST_START,
        description=f"the time limit of a start, in whole seconds from 1 to {LONGEST_START}",
    )
    stall_seconds: int = Field(
        900,
        ge=1,
        le=LONGEST_START,
        description="the time limit without anything new in the log, in whole seconds from 1 to "
        f"{LONGEST_START}",
    )
    revert_on_failure: bool = Field(
        False, description="true to return to the last good deployment when `make up` fails"
    )


class Host(Section):
    """The machine that the memory plan is made for. The defaults are those of a DGX Spark."""

    memory_gib: float = Field(
        121.69,
        alias="memoryGiB",
        gt=0,
        description="the memory in GiB, as vLLM reports it",
    )
    memory_bandwidth_gbps: float = Field(
        273.0, alias="memoryBandwidthGBps", gt=0, description="the memory bandwidth, in GB/s"
    )
    unified: bool = Field(
        True, description="true if GPU and host share one memory, as on a Spark; else false"
    )
    allow_misfit: bool = Field(
        False, description="true to warn, instead of refusing, when the memory does not suffice"
    )


class PolicyException(Section):
    """One rule of the policy pack that this stack may break."""

    rule: RuleName = Field(description=f"a rule of the policy pack: {', '.join(RULES)}")
    reason: Reason = Field(
        description=f"one line, up to {LONGEST_REASON} characters: why the stack needs it"
    )


class Policy(Section):
    """What a team's policy pack lets this stack do. Only the pack and the reviewers read it."""

    exceptions: list[PolicyException] = Field(
        [], description="rules that this stack may break: [{rule, reason}]"
    )

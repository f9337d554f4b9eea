"""The objects of a stack's config, each with the rules of its own keys.

A field's description says what would be right: the error of a mistake ends with it, and the
reference of the keys is made of it.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, model_validator
from pydantic.alias_generators import to_camel

from vllm_spark.config.values import (
    DOCKER_NAME,
    HOST_FOLDER,
    DeviceNumber,
    DockerName,
    ImageName,
    ModelId,
    Release,
    Revision,
    ServedName,
    Ulimit,
    VariableName,
)
from vllm_spark.errors import ConfigError
from vllm_spark.images import ImageReference, Version, vllm_version
from vllm_spark.problems import Problem

NAMESPACE = "vllm-spark"
"""Prefix of every config key. Fixed, so that a project made from this one may have any name."""

LONGEST_START = 86_400
"""Seconds, the most that the health gate can be told to wait."""


class Section(BaseModel):
    """Base of every config object: camelCase keys, none unknown, no change after parsing."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=False
    )


class Model(Section):
    """Which model is served."""

    id: ModelId = Field(description="a repository on the Hugging Face hub, as owner/name")
    revision: Revision | None = Field(
        None, description="a commit, tag or branch of that repository"
    )
    served_name: ServedName | None = Field(
        None, description="the name that clients ask for, one word; the model's id if not given"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"id": value} if isinstance(value, str) else value


class Image(Section):
    """Which image serves it."""

    name: ImageName = Field(description="an image with its tag or digest")
    vllm_version: Release | None = Field(
        None, description="the vLLM release in the image, such as 0.28.0, where its tag tells none"
    )
    registry_user: str = Field(
        "$oauthtoken",
        description="whose password vllm-spark:registryPassword is; nvcr.io's user if not given",
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
        """The vLLM release in the image; None if neither config nor tag tells."""
        told = self.vllm_version
        return Version.parse(told) if told else vllm_version(self.reference)


class Cache(Section):
    """Where weights are kept between containers: a folder of the host, or a Docker volume."""

    host_path: str | None = Field(None, description="a folder of the host, from the root")
    volume: str | None = Field(None, description="the name of a Docker volume")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        """All that is wrong at once: a field's own check would keep this one from running."""
        path, volume = self.host_path, self.volume
        problems = []
        if (path is None) == (volume is None):
            what = "names neither hostPath nor volume" if path is None else "names two places"
            fix = "give either hostPath or volume, and only one of them"
            problems.append(Problem(f"{NAMESPACE}:cache", what, fix))
        if path is not None and not re.fullmatch(HOST_FOLDER, path):
            what = f"{path!r} is not of the right form"
            fix = "give a folder of the host, from the root, such as /opt/hf"
            problems.append(Problem(f"{NAMESPACE}:cache.hostPath", what, fix))
        if volume is not None and not re.fullmatch(DOCKER_NAME, volume):
            what = f"{volume!r} is not of the right form"
            fix = "give the name of a Docker volume, such as vllm-spark-cache"
            problems.append(Problem(f"{NAMESPACE}:cache.volume", what, fix))
        if problems:
            raise ConfigError(problems)
        return self

    @property
    def source(self) -> str:
        """What stands left of the colon in `docker run --volume`."""
        return self.host_path or self.volume or ""


class Endpoint(Section):
    """Where the server can be reached on the host."""

    bind: IPvAnyAddress = Field(
        IPv4Address("127.0.0.1"), description="the host's address to listen on"
    )
    port: int = Field(
        8000, ge=1, le=65535, description="the host's port to listen on, from 1 to 65535"
    )

    @property
    def base_url(self) -> str:
        """Where clients on the host find the API."""
        everywhere = self.bind.is_unspecified
        host = ("::1" if self.bind.version == 6 else "127.0.0.1") if everywhere else str(self.bind)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"


class Container(Section):
    """How the container runs."""

    name: DockerName | None = Field(None, description="the container's name; vllm-<stack> if none")
    gpus: Literal["all", "none"] | Annotated[list[DeviceNumber], Field(min_length=1)] = Field(
        "all", description="all, none, or a list of device numbers: the GPUs that it sees"
    )
    ipc: Literal["host", "private", "shareable"] = Field(
        "host", description="host, private or shareable: whose shared memory it uses"
    )
    restart: Literal["no", "always", "unless-stopped", "on-failure"] = Field(
        "unless-stopped",
        description="no, always, unless-stopped or on-failure: when Docker starts it again",
    )
    ulimits: dict[Ulimit, Annotated[int, Field(ge=-1)]] = Field(
        {}, description="soft and hard limit by name, such as memlock or stack; -1 is unlimited"
    )
    environment: dict[VariableName, str] = Field(
        {}, description="environment variables as text; no secrets, they have keys of their own"
    )


class Gpu(Section):
    """What becomes of other containers on the GPU."""

    takeover: bool = Field(
        False, description="true to have them stopped once everything else is known to be well"
    )
    alongside: list[DockerName] = Field(
        [], description="a list of containers that may use the GPU at the same time"
    )


class Health(Section):
    """How long the health gate waits: at most, and at most without anything new in the log.

    `revertOnFailure` is read by `make up` alone: Pulumi itself does not go back.
    """

    timeout_seconds: int = Field(
        3600,
        ge=1,
        le=LONGEST_START,
        description=f"whole seconds from 1 to {LONGEST_START} that a start may take",
    )
    stall_seconds: int = Field(
        900,
        ge=1,
        le=LONGEST_START,
        description=f"whole seconds from 1 to {LONGEST_START} that a start may take without "
        "anything new in its log",
    )
    revert_on_failure: bool = Field(
        False, description="true to have `make up` return to the last good deployment by itself"
    )


class Host(Section):
    """The machine that the plan is made for. The defaults are a DGX Spark's."""

    memory_gib: float = Field(
        121.69, alias="memoryGiB", gt=0, description="GiB that vLLM sees, as its log prints them"
    )
    memory_bandwidth_gbps: float = Field(
        273.0, alias="memoryBandwidthGBps", gt=0, description="GB/s of its memory"
    )
    unified: bool = Field(
        True, description="true if GPU and host share one memory, as on a Spark; else false"
    )
    allow_misfit: bool = Field(
        False, description="true to be warned where a plan does not fit, instead of stopped"
    )

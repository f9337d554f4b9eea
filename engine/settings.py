"""A stack's config as typed values, checked whole before anything is touched.

One pydantic model per config key, unknown keys refused. Everything wrong in a config file is said
in one `ConfigError`, each mistake with the key as the user wrote it and a mend. The same parser
reads the config whether Pulumi hands it over or a YAML file does, so that tools beside Pulumi see
exactly what a deployment sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    JsonValue,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from engine.config_values import (
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
from engine.flag_checks import check, check_length, check_quantization
from engine.images import ImageReference, Version, vllm_version
from engine.known_models import find_shape
from engine.problems import ConfigError, Problem
from engine.shape import ModelShape
from engine.validation import problems_from

NAMESPACE = "vllm-spark"
"""Prefix of every config key. Fixed, so that a project made from this one may have any name."""

SECRETS = ("apiKey", "huggingFaceToken", "registryPassword")

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
            mend = "give either hostPath or volume, and only one of them"
            problems.append(Problem(f"{NAMESPACE}:cache", what, mend))
        if path is not None and not re.fullmatch(HOST_FOLDER, path):
            what = f"{path!r} is not of the right form"
            mend = "give a folder of the host, from the root, such as /opt/hf"
            problems.append(Problem(f"{NAMESPACE}:cache.hostPath", what, mend))
        if volume is not None and not re.fullmatch(DOCKER_NAME, volume):
            what = f"{volume!r} is not of the right form"
            mend = "give the name of a Docker volume, such as vllm-spark-cache"
            problems.append(Problem(f"{NAMESPACE}:cache.volume", what, mend))
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


class HostMemory(Section):
    """The machine that the plan is made for. The defaults are a DGX Spark's."""

    memory_gib: float = Field(
        121.69, alias="memoryGiB", gt=0, description="GiB that vLLM sees, as its log prints them"
    )
    memory_bandwidth_gbps: float = Field(
        273.0, alias="memoryBandwidthGBps", gt=0, description="GB/s of its memory"
    )
    allow_misfit: bool = Field(
        False, description="true to be warned where a plan does not fit, instead of stopped"
    )


class Settings(BaseModel):
    """All of a stack's config. Read it with `parse`, which reports every mistake at once."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=False
    )

    model: Model = Field(description="the model: {id, revision, servedName}")
    image: Image = Field(description="the image: {name, vllmVersion}")
    engine: dict[str, JsonValue] = Field({}, description="vLLM's own flags by their own names")
    cache: Cache = Field(description="the cache: {hostPath} or {volume}")
    endpoint: Endpoint = Field(Endpoint(), description="the endpoint: {bind, port}")
    container: Container = Field(
        Container(), description="the container: {name, gpus, ipc, restart, ulimits, environment}"
    )
    gpu: Gpu = Field(Gpu(), description="others on the GPU: {takeover, alongside}")
    health: Health = Field(
        Health(), description="the health gate: {timeoutSeconds, stallSeconds, revertOnFailure}"
    )
    host: HostMemory = Field(
        HostMemory(), description="the host: {memoryGiB, memoryBandwidthGBps, allowMisfit}"
    )
    state: Literal["running", "stopped"] = Field(
        "running", description="running, or stopped: created but not started"
    )
    api_key: SecretStr | None = Field(None, description="the key that clients must send")
    hugging_face_token: SecretStr | None = Field(None, description="the token for gated models")
    registry_password: SecretStr | None = Field(
        None, description="the password for the image's registry; for nvcr.io an NGC API key"
    )

    @classmethod
    def parse(cls, config: Mapping[str, object], secret_keys: frozenset[str]) -> Self:
        """Read config keys (without the namespace) to values; text that holds JSON is decoded.

        `secret_keys` are the keys that Pulumi stores encrypted. ConfigError names every mistake.
        """
        readable = [key for key in SECRETS if key in config and key not in secret_keys]
        problems = [
            Problem(
                f"{NAMESPACE}:{key}",
                "is in plain text, so it would be readable in the config file and in the state",
                f"pulumi config set --secret {NAMESPACE}:{key}",
            )
            for key in readable
        ]
        # Left out below, so that no other error can show them.
        decoded = {key: as_value(config[key]) for key in config if key not in readable}
        problems += _flag_errors(decoded)
        try:
            settings = cls.model_validate(decoded)
        except ValidationError as error:
            raise ConfigError(problems + problems_from(error, cls, NAMESPACE)) from None
        if problems:
            raise ConfigError(problems)
        return settings

    @property
    def served_name(self) -> str:
        """What clients put into the `model` field of a request."""
        return self.model.served_name or self.model.id


def _flag_errors(decoded: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the engine's flags, also when something else is wrong too."""
    engine = decoded.get("engine")
    if not isinstance(engine, dict):
        return []
    image, model = _valid(Image, decoded, "image"), _valid(Model, decoded, "model")
    cache, container = _valid(Cache, decoded, "cache"), _valid(Container, decoded, "container")
    errors = check(engine, version=image.version if image else None)[0]
    if model is not None:
        shape = find_shape(model.id, model.revision, cache.host_path if cache else None)
        if isinstance(shape, ModelShape):
            environment = container.environment if container else {}
            errors += check_length(engine, shape.positions, environment)
            errors += check_quantization(engine, shape.quantization)
    return errors


AnySection = TypeVar("AnySection", bound=Section)


def _valid(section: type[AnySection], decoded: Mapping[str, Any], key: str) -> AnySection | None:
    """One section by itself; None if it is wrong, which is said elsewhere."""
    try:
        return section.model_validate(decoded.get(key))
    except ValueError:
        return None


def load_stack(path: Path) -> Settings:
    """The settings in a `Pulumi.<stack>.yaml`, without Pulumi. Encrypted values stay unread."""
    try:
        config = yaml.safe_load(path.read_text())["config"]
        ours = {key: config[key] for key in config if key.startswith(f"{NAMESPACE}:")}
    except FileNotFoundError:
        stacks = sorted(found.name.split(".")[1] for found in path.parent.glob("Pulumi.*.yaml"))
        what, mend = "there is no such stack file", f"take one of: {', '.join(stacks)}"
        raise ConfigError([Problem(path.name, what, mend)]) from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        what = f"cannot be read as a stack's config: {error}"
        mend = "write keys such as vllm-spark:model below a `config:` at the top"
        raise ConfigError([Problem(path.name, what, mend)]) from None
    ours = {key.removeprefix(f"{NAMESPACE}:"): value for key, value in ours.items()}
    encrypted = {
        key for key, value in ours.items() if isinstance(value, dict) and "secure" in value
    }
    readable = {key: "(encrypted)" if key in encrypted else ours[key] for key in ours}
    return Settings.parse(readable, frozenset(encrypted))


def as_value(value: object) -> Any:
    """Pulumi hands objects and lists over as JSON text."""
    if isinstance(value, str) and re.match(r"\s*[{\[]", value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value

"""A stack's config as typed values. All of it is checked before anything is changed.

There is one pydantic model per config key, and unknown keys are refused. One `ConfigError` lists
every mistake in a config, each with the key as the user wrote it and a fix. The same parser reads
the config from Pulumi and from a YAML file, so that a command such as `fit` sees exactly what a
deployment sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError

from vllm_spark.config.container import Container
from vllm_spark.config.sections import (
    NAMESPACE,
    Cache,
    Endpoint,
    Gpu,
    Health,
    Host,
    Image,
    Model,
    Policy,
    Section,
)
from vllm_spark.config.validation import problems_from
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.problems import Problem

SECRETS = ("apiKey", "huggingFaceToken", "registryPassword", "secretEnvironment")

_AS_SECRET = {
    **{key: f"pulumi config set --secret {NAMESPACE}:{key}" for key in SECRETS[:3]},
    "secretEnvironment": f"pulumi config set --secret --path {NAMESPACE}:secretEnvironment.NAME",
}
"""The command that sets each of them."""

ROLLBACK = "rollback"
"""Never in a stack file: `vllm-spark rollback` passes the last good settings of a server here."""


class Settings(Section):
    """All of a stack's config. Read it with `parse`, which reports every mistake at once."""

    model: Model = Field(description="the model: {id, revision, servedName}")
    image: Image = Field(description="the image: {name, vllmVersion, registryUser}")
    engine: EngineFlags = Field(EngineFlags(), description="vLLM's own flags, by vLLM's names")
    cache: Cache = Field(description="the cache: {hostPath} or {volume}")
    endpoint: Endpoint = Field(Endpoint(), description="the endpoint: {bind, port}")
    container: Container = Field(
        Container(), description="the container: {name, gpus, environment, network, mounts, ...}"
    )
    gpu: Gpu = Field(Gpu(), description="other containers on the GPU: {takeover, alongside}")
    health: Health = Field(
        Health(), description="the health gate: {timeoutSeconds, stallSeconds, revertOnFailure}"
    )
    host: Host = Field(
        Host(), description="the host: {memoryGiB, memoryBandwidthGBps, unified, allowMisfit}"
    )
    state: Literal["running", "stopped"] = Field(
        "running", description="running, or stopped: the container is created but not started"
    )
    policy: Policy = Field(Policy(), description="the team's policy pack: {exceptions}")
    api_key: SecretStr | None = Field(None, description="the API key that clients must send")
    hugging_face_token: SecretStr | None = Field(
        None, description="the Hugging Face token, for gated models"
    )
    registry_password: SecretStr | None = Field(
        None, description="the password of the image's registry; for nvcr.io, an NGC API key"
    )
    secret_environment: SecretStr | None = Field(
        None, description="an object of environment variables whose values are secret"
    )

    @classmethod
    def parse(cls, config: Mapping[str, object], secret_keys: frozenset[str]) -> Self:
        """Parse a mapping from config key (without the namespace) to value; JSON text is decoded.

        `secret_keys` are the keys that Pulumi stores encrypted. ConfigError lists every key and
        value that is not valid. `deployment.review` checks flags and memory.
        """
        readable = [key for key in SECRETS if key in config and key not in secret_keys]
        problems = [
            Problem(
                f"{NAMESPACE}:{key}",
                "is in plain text, so it would be readable in the config file and in the state",
                _AS_SECRET[key],
            )
            for key in readable
        ]
        problems += [
            Problem(
                f"{NAMESPACE}:{key}",
                "holds a secret value, which would be readable in the state: this key is not one "
                "that is kept secret",
                "remove the value; a variable of the server may be secret as "
                f"{_AS_SECRET['secretEnvironment']}",
            )
            for key in sorted(secret_keys - {*SECRETS})
        ]
        # They are left out below, so that no other error can show their values.
        hidden = {*readable, *(secret_keys - {*SECRETS})}
        decoded = {key: as_value(config[key]) for key in config if key not in hidden}
        try:
            settings = cls.model_validate(decoded)
        except ValidationError as error:
            raise ConfigError(problems + problems_from(error, cls, NAMESPACE)) from None
        if problems:
            raise ConfigError(problems)
        return settings

    def declared(self) -> dict[str, Any]:
        """The config without defaults, as JSON. Secrets appear as masks, never as values."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def from_declared(cls, declared: Mapping[str, object]) -> Self:
        """The inverse of `declared`. ConfigError for a key or value that this release refuses."""
        return cls.parse(declared, frozenset(SECRETS))

    @property
    def served_name(self) -> str:
        """The `model` field of a client's request."""
        return self.model.served_name or self.model.id


def as_value(value: object) -> Any:
    """Decode JSON text: Pulumi passes objects and lists in this form."""
    if isinstance(value, str) and re.match(r"\s*[{\[]", value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value

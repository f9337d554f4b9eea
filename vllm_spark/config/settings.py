"""A stack's config as typed values, checked whole before anything is touched.

One pydantic model per config key, unknown keys refused. Everything wrong in a config file is said
in one `ConfigError`, each mistake with the key as the user wrote it and a fix. The same parser
reads the config whether Pulumi hands it over or a YAML file does, so that tools beside Pulumi see
exactly what a deployment sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError

from vllm_spark.config.sections import (
    NAMESPACE,
    Cache,
    Container,
    Endpoint,
    Gpu,
    Health,
    Host,
    Image,
    Model,
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
"""A key of no stack file: `vllm-spark rollback` gives a server's last good settings under it."""


class Settings(Section):
    """All of a stack's config. Read it with `parse`, which reports every mistake at once."""

    model: Model = Field(description="the model: {id, revision, servedName}")
    image: Image = Field(description="the image: {name, vllmVersion, registryUser}")
    engine: EngineFlags = Field(EngineFlags(), description="vLLM's own flags by their own names")
    cache: Cache = Field(description="the cache: {hostPath} or {volume}")
    endpoint: Endpoint = Field(Endpoint(), description="the endpoint: {bind, port}")
    container: Container = Field(
        Container(), description="the container: {name, gpus, ipc, restart, ulimits, environment}"
    )
    gpu: Gpu = Field(Gpu(), description="others on the GPU: {takeover, alongside}")
    health: Health = Field(
        Health(), description="the health gate: {timeoutSeconds, stallSeconds, revertOnFailure}"
    )
    host: Host = Field(
        Host(), description="the host: {memoryGiB, memoryBandwidthGBps, allowMisfit}"
    )
    state: Literal["running", "stopped"] = Field(
        "running", description="running, or stopped: created but not started"
    )
    api_key: SecretStr | None = Field(None, description="the key that clients must send")
    hugging_face_token: SecretStr | None = Field(None, description="the token for gated models")
    registry_password: SecretStr | None = Field(
        None, description="the password for the image's registry; for nvcr.io an NGC API key"
    )
    secret_environment: SecretStr | None = Field(
        None, description="an object of environment variables whose values are secret"
    )

    @classmethod
    def parse(cls, config: Mapping[str, object], secret_keys: frozenset[str]) -> Self:
        """Read config keys (without the namespace) to values; text that holds JSON is decoded.

        `secret_keys` are the keys that Pulumi stores encrypted. ConfigError names every mistake of
        form; whether flags and memory are right is for `deployment.review`.
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
        # Left out below, so that no other error can show them.
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
        """What the config says, less its defaults, as JSON. Of secrets only that they are there."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def from_declared(cls, declared: Mapping[str, object]) -> Self:
        """The inverse of `declared`. ConfigError for what this release does not take any more."""
        return cls.parse(declared, frozenset(SECRETS))

    @property
    def served_name(self) -> str:
        """What clients put into the `model` field of a request."""
        return self.model.served_name or self.model.id


def as_value(value: object) -> Any:
    """Pulumi hands objects and lists over as JSON text."""
    if isinstance(value, str) and re.match(r"\s*[{\[]", value):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value

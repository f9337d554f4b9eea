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
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, JsonValue, SecretStr, ValidationError

from engine.flag_checks import check, check_for_model
from engine.known_models import find_shape
from engine.problems import ConfigError, Problem
from engine.sections import (
    NAMESPACE,
    Cache,
    Container,
    Endpoint,
    Gpu,
    Health,
    HostMemory,
    Image,
    Model,
    Section,
)
from engine.shape import ModelShape
from engine.validation import problems_from

SECRETS = ("apiKey", "huggingFaceToken", "registryPassword")


class Settings(Section):
    """All of a stack's config. Read it with `parse`, which reports every mistake at once."""

    model: Model = Field(description="the model: {id, revision, servedName}")
    image: Image = Field(description="the image: {name, vllmVersion, registryUser}")
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
            errors += check_for_model(engine, shape, container.environment if container else {})
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
    except (yaml.YAMLError, UnicodeError, KeyError, TypeError, AttributeError) as error:
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

"""Reads `Pulumi.<stack>.yaml` without Pulumi, for commands that need no deployment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import Settings
from vllm_spark.errors import ConfigError
from vllm_spark.problems import Problem
from vllm_spark.project import ROOT

_SALT = re.compile(r"""^["']?encryptionsalt["']?\s*:.*\n?""", re.MULTILINE)


def stack_file(stack: str) -> Path:
    """The config file of a stack of this project; of `owner/project/stack` the last part counts.

    ConfigError if there is none.
    """
    path = ROOT / f"Pulumi.{stack.rpartition('/')[2]}.yaml"
    if path.is_file():
        return path
    stacks = sorted(found.name.split(".")[1] for found in ROOT.glob("Pulumi.*.yaml"))
    fix = f"choose one of: {', '.join(stacks)}" if stacks else "change to the project's folder"
    raise ConfigError([Problem(path.name, f"there is no such file in {ROOT}", fix)])


def for_pulumi(path: Path) -> str:
    """The text of a stack file, without a salt that no secret in it needs.

    The salt belongs to the passphrase of the clone that wrote it: with it, Pulumi refuses all of
    the file in another clone. Without it, Pulumi takes that of the state.
    """
    text = path.read_text()
    has_secrets = encrypted((yaml.safe_load(text) or {}).get("config") or {})
    return text if has_secrets else _SALT.sub("", text)


def load_stack(path: Path) -> Settings:
    """The settings in a stack file. ConfigError if it is not valid. Nothing is decrypted."""
    return _settings(_ours(path))


def load_stack_if_ours(path: Path) -> Settings | None:
    """As `load_stack`; None if the file has no key of ours, as in a program with its own config."""
    ours = _ours(path)
    return _settings(ours) if ours else None


def _settings(ours: dict[str, Any]) -> Settings:
    secret = frozenset(key for key, value in ours.items() if encrypted(value))
    readable = {key: "(encrypted)" if key in secret else ours[key] for key in ours}
    return Settings.parse(readable, secret)


def encrypted(value: Any) -> bool:
    """Whether a value out of a config file is encrypted, or holds something that is."""
    if isinstance(value, Mapping):
        return "secure" in value or any(encrypted(inner) for inner in value.values())
    return isinstance(value, list) and any(encrypted(inner) for inner in value)


def _ours(path: Path) -> dict[str, Any]:
    """The values of our keys, without the namespace. ConfigError if the file cannot be read."""
    try:
        config = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
        prefix = f"{NAMESPACE}:"
        return {key.removeprefix(prefix): config[key] for key in config if key.startswith(prefix)}
    except (OSError, yaml.YAMLError, UnicodeError, TypeError, AttributeError) as error:
        what = f"is not a readable stack config: {error}"
        fix = "put keys such as vllm-spark:model under a top-level `config:`"
        raise ConfigError([Problem(path.name, what, fix)]) from None

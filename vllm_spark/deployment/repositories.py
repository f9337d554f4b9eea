"""The repositories of the hub that a server reads: the model's, and others that its flags name.

The server starts offline, so each of them must be in the cache first. A name counts as a repository
if it looks like owner/name; anything else is a path in the container.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from vllm_spark.config.settings import Settings
from vllm_spark.flags.argv import FlagValue
from vllm_spark.images import Version
from vllm_spark.problems import Problem


@dataclass(frozen=True)
class Repository:
    """A repository to fetch, at a commit, tag or branch (None: `main`), with or without weights."""

    id: str
    revision: str | None = None
    weights: bool = True


def besides_the_model(settings: Settings) -> list[Repository]:
    """The repositories that the engine flags name, except the model's own."""
    model, flags = settings.model, settings.engine
    own = Repository(model.id, model.revision)
    found = [*_named(flags, own)]
    # A repository fetched with its weights is complete: no second fetch without them.
    complete = {(one.id, one.revision) for one in (own, *found) if one.weights}
    return [
        one
        for one in dict.fromkeys(found)
        if one != own and (one.weights or (one.id, one.revision) not in complete)
    ]


def leaking_pin(settings: Settings, version: Version | None) -> list[Problem]:
    """The warning about a release that asks other repositories for the model's pinned revision."""
    others = [one.id for one in besides_the_model(settings) if one.id != settings.model.id]
    revision = settings.model.revision
    if revision is None or version is None or version.numbers[:2] not in _LEAKING or not others:
        return []
    return [
        Problem(
            "vllm-spark:model.revision",
            f"vLLM {version} may ask for revision {revision} of other repositories too: "
            f"{', '.join(others)}. They do not have it, and the start would fail",
            "take an image with vLLM 0.31.0, or remove the revision: the fetched commit is "
            "recorded, and a rollback pins it",
        )
    ]


_LEAKING = ((0, 28), (0, 29))
"""Releases with the fault: most failed endpoints of one provider (runpod-workers/worker-vllm, pull
requests 343 and 344; vllm-project/vllm, pull request 56092)."""


def _named(flags: Mapping[str, FlagValue], own: Repository) -> Iterator[Repository]:
    speculative = _object(flags, "speculative-config")
    if _of_hub(draft := speculative.get("model")):
        yield Repository(draft, speculative.get("revision"))
    for adapter in _adapters(flags.get("lora-modules")):
        yield Repository(adapter, None)
    tokenizer = flags.get("tokenizer") or own.id
    revision = flags.get("tokenizer-revision")
    if _of_hub(tokenizer) and (tokenizer != own.id or revision is not None):
        # Without a tokenizer revision, vLLM uses the model's.
        yield Repository(tokenizer, str(revision) if revision else own.revision, weights=False)
    if _of_hub(config := flags.get("hf-config-path")):
        yield Repository(config, own.revision, weights=False)


def _of_hub(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name))


def _object(flags: Mapping[str, FlagValue], name: str) -> dict[str, Any]:
    """A JSON flag, given as a whole or in parts (`speculative-config.model`)."""
    whole = flags.get(name)
    parts = {
        flag.removeprefix(f"{name}."): value
        for flag, value in flags.items()
        if flag.startswith(f"{name}.")
    }
    return {**(whole if isinstance(whole, dict) else {}), **parts}


def _adapters(modules: FlagValue) -> Iterator[str]:
    """The hub's paths in `--lora-modules`, each NAME=PATH or {"name": ..., "path": ...}."""
    for module in modules if isinstance(modules, list) else [modules]:
        if isinstance(module, str) and module.startswith("{"):
            module = json.loads(module)
        path = module.get("path") if isinstance(module, dict) else str(module).partition("=")[2]
        if _of_hub(path):
            yield path

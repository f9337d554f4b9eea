"""Reviews a stack before it is deployed: does it fit, and what looks doubtful?

The parser of the config checks form; this module checks flags, model and host together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

from vllm_spark.config.container import Container
from vllm_spark.config.sections import Cache, Endpoint, Image, Model
from vllm_spark.config.settings import Settings, as_value
from vllm_spark.deployment.host_access import mounts_in_the_way, warnings_about
from vllm_spark.deployment.repositories import leaking_pin
from vllm_spark.errors import ConfigError
from vllm_spark.flags.checks import check
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import check_image
from vllm_spark.memory.known_models import find_shape
from vllm_spark.memory.limits import Machine, cpu_kv_cache_gib
from vllm_spark.memory.loading import speculation_of
from vllm_spark.memory.misfits import problems_of, warnings_of
from vllm_spark.memory.model_checks import check_for_model
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Problem, Unmodelled


@dataclass(frozen=True)
class Review:
    """The memory plan, and the warnings."""

    plan: MemoryPlan | Unmodelled
    warnings: tuple[Problem, ...]


def read(config: Mapping[str, object], secret_keys: frozenset[str]) -> Settings:
    """`Settings.parse`; if it fails, its ConfigError also lists the errors in the flags.

    So one error lists the mistakes in all parts of a config.
    """
    try:
        return Settings.parse(config, secret_keys)
    except ConfigError as error:
        flags = _section(EngineFlags, config, "engine") or EngineFlags()
        image, model = _section(Image, config, "image"), _section(Model, config, "model")
        cache, container = (
            _section(Cache, config, "cache"),
            _section(Container, config, "container"),
        )
        problems = [*error.problems, *check(flags, version=image.version if image else None).errors]
        if model is not None:
            shape = find_shape(model.id, model.revision, cache.host_path if cache else None)
            problems += _model_problems(flags, shape, container.environment if container else {})
        raise ConfigError(problems) from None


def review(settings: Settings, *, has_key: bool | None = None) -> Review:
    """Plan the stack. `has_key`: whether clients need an API key; None: as in the settings.

    ConfigError for flags that vLLM would refuse, and for a plan that does not fit, unless
    `host.allowMisfit` is set.
    """
    version = settings.image.version
    checked = check(settings.engine, version=version)
    with_key = settings.api_key is not None if has_key is None else has_key
    exposed = _exposed(settings.endpoint) if not with_key else []
    hidden = mounts_in_the_way(settings.container)
    if errors := checked.errors + misfits_with_model(settings) + exposed + hidden:
        raise ConfigError(errors)
    plan = plan_of(settings)
    misfits = problems_of(plan)
    if misfits and not settings.host.allow_misfit:
        raise ConfigError(misfits)
    doubts = [*checked.warnings, *check_image(settings.image.reference, version)]
    doubts += [*leaking_pin(settings, version), *warnings_about(settings.container)]
    return Review(plan, (*misfits, *warnings_of(plan), *doubts))


def _exposed(endpoint: Endpoint) -> list[Problem]:
    """The problem of a server without an API key that other machines can reach."""
    if endpoint.open or not endpoint.is_reachable_from_elsewhere:
        return []
    return [
        Problem(
            "vllm-spark:endpoint.bind",
            f"{endpoint.bind} lets other machines reach the server, and it asks for no API key",
            "pulumi config set --secret vllm-spark:apiKey; or, where everybody may use it: "
            "pulumi config set --path vllm-spark:endpoint.open true",
        )
    ]


def plan_of(settings: Settings) -> MemoryPlan | Unmodelled:
    """The stack's memory plan, whether it fits or not. ConfigError for impossible numbers."""
    cpu_gib = None
    if settings.image.reference.is_cpu:  # other images ignore the variable
        cpu_gib = cpu_kv_cache_gib(settings.container.environment)
        if cpu_gib is None:
            return Unmodelled(
                "without VLLM_CPU_KVCACHE_SPACE in container.environment, vLLM on a CPU sizes its "
                "KV cache by the memory that it finds"
            )
    host = settings.host
    machine = Machine(host.memory_gib, host.memory_bandwidth_gbps, host.unified)
    version = settings.image.version
    return make_plan(_shape(settings), settings.engine, machine, version, cpu_gib, _draft(settings))


def misfits_of(settings: Settings) -> list[Problem]:
    """Conflicts with the model, by its files in the cache now, which may have just been fetched.

    ConfigError for impossible numbers.
    """
    problems = [] if settings.host.allow_misfit else problems_of(plan_of(settings))
    return problems + misfits_with_model(settings)


def misfits_with_model(settings: Settings) -> list[Problem]:
    """Flags that this model cannot take."""
    return _model_problems(settings.engine, _shape(settings), settings.container.environment)


def _shape(settings: Settings) -> ModelShape | Unmodelled:
    model = settings.model
    return find_shape(model.id, model.revision, settings.cache.host_path)


def _draft(settings: Settings) -> ModelShape | Unmodelled | None:
    """The draft model that `speculative-config` names, if it is a repository of the hub."""
    model = speculation_of(settings.engine).model
    if model is None:
        return None
    return find_shape(model, None, settings.cache.host_path)


def _model_problems(
    flags: EngineFlags, shape: ModelShape | Unmodelled, environment: Mapping[str, str]
) -> list[Problem]:
    if isinstance(shape, Unmodelled):
        return []
    return check_for_model(flags, shape, environment)


AnySection = TypeVar("AnySection")


def _section(type_: type[AnySection], config: Mapping[str, Any], key: str) -> AnySection | None:
    """One part of the config by itself; None if it is missing or wrong (reported elsewhere)."""
    try:
        return TypeAdapter(type_).validate_python(as_value(config.get(key)))
    except ValueError:
        return None

"""All that can be said of a stack before it is deployed: does it fit, and what looks doubtful.

The flags alone are checked while the settings are read; here model, flags and host meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.fit import problems_of
from engine.flag_checks import check, check_for_model
from engine.flags import normalised
from engine.images import check_image
from engine.known_models import find_shape
from engine.limits import Host, cpu_kv_cache_gib
from engine.memory_plan import MemoryPlan, make_plan
from engine.problems import ConfigError, Problem
from engine.settings import Settings
from engine.shape import ModelShape
from engine.unmodelled import Unmodelled


@dataclass(frozen=True)
class Review:
    """The memory plan, and what a person should know before going on."""

    plan: MemoryPlan | Unmodelled
    warnings: tuple[Problem, ...]


def plan_of(settings: Settings) -> MemoryPlan | Unmodelled:
    """The stack's memory plan, whether it fits or not. ConfigError for impossible numbers."""
    image, environment = settings.image, settings.container.environment
    flags = normalised(settings.engine)
    cpu_gib = cpu_kv_cache_gib(environment)
    model, cache = settings.model, settings.cache
    shape = find_shape(model.id, model.revision, cache.host_path)
    if image.reference.is_cpu and cpu_gib is None:
        return Unmodelled(
            "without VLLM_CPU_KVCACHE_SPACE in container.environment the CPU engine takes its KV "
            "cache as it finds memory"
        )
    return make_plan(
        shape,
        flags,
        Host(settings.host.memory_gib, settings.host.memory_bandwidth_gbps),
        image.version.numbers if image.version else None,
        cpu_gib,
    )


def misfits_of(settings: Settings) -> list[Problem]:
    """What cannot work with the model, by what is known of it now: its weights may just have come.

    ConfigError for impossible numbers.
    """
    problems = [] if settings.host.allow_misfit else problems_of(plan_of(settings))
    shape = find_shape(settings.model.id, settings.model.revision, settings.cache.host_path)
    if isinstance(shape, ModelShape):
        problems += check_for_model(settings.engine, shape, settings.container.environment)
    return problems


def review(settings: Settings) -> Review:
    """Plan the stack. ConfigError if it does not fit and `host.allowMisfit` is not set."""
    plan = plan_of(settings)
    misfits = problems_of(plan)
    if misfits and not settings.host.allow_misfit:
        raise ConfigError(misfits)
    version = settings.image.version
    doubts = check(settings.engine, version=version)[1]
    doubts += check_image(settings.image.reference, version)
    return Review(plan, (*misfits, *doubts))

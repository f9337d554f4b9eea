"""All that can be said of a stack before it is deployed: does it fit, and what looks doubtful.

The flags alone are checked while the settings are read; here model, flags and host meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.fit import problems_of
from engine.flag_checks import check, check_length
from engine.images import check_image
from engine.limits import Host, cpu_kv_cache_gib
from engine.memory_plan import MemoryPlan, make_plan
from engine.model_config import known_shapes
from engine.problems import ConfigError, Problem
from engine.settings import Settings
from engine.unmodelled import Unmodelled


@dataclass(frozen=True)
class Review:
    """The memory plan, and what a person should know before going on."""

    plan: MemoryPlan | Unmodelled
    warnings: tuple[Problem, ...]


def plan_of(settings: Settings) -> MemoryPlan | Unmodelled:
    """The stack's memory plan, whether it fits or not. ConfigError for impossible numbers."""
    version, environment = settings.image.version, settings.container.environment
    shape = known_shapes().get(settings.model.id)
    if shape is None:
        return Unmodelled(f"no file in models/ has the id {settings.model.id}")
    if not isinstance(shape, Unmodelled):
        too_long = check_length(settings.engine, shape.positions, environment)
        if too_long:
            raise ConfigError(too_long)
    return make_plan(
        shape,
        settings.engine,
        Host(settings.host.memory_gib, settings.host.memory_bandwidth_gbps),
        version.numbers if version else None,
        cpu_kv_cache_gib(environment),
    )


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

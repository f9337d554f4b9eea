"""Is there memory for the server now? What it will take, beside what the host has to give.

MemAvailable counts: on a Spark nvidia-smi names no sizes, and MemFree leaves out the page cache,
which gives way. What cannot be known is `Unmodelled`, with the reason: never zero, never enough.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.review import plan_of
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.limits import Machine, default_utilization
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.problems import Problem, Unmodelled

_KIB_A_GIB = 2**20


@dataclass(frozen=True)
class Meminfo:
    """A host's memory at one moment, in GiB."""

    total_gib: float
    available_gib: float
    free_gib: float


def read_meminfo(text: str) -> Meminfo:
    """Read Linux' /proc/meminfo. ValueError if it is something else."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}
    if not {"MemTotal", "MemAvailable", "MemFree"} <= kib.keys():
        raise ValueError("no MemTotal and MemAvailable in it")
    total, available, free = (
        kib[name] / _KIB_A_GIB for name in ("MemTotal", "MemAvailable", "MemFree")
    )
    return Meminfo(total, available, free)


def on_cpu(settings: Settings) -> bool:
    """Whether the server leaves a GPU alone."""
    return settings.image.reference.is_cpu or settings.container.gpus == "none"


def memory_needed(settings: Settings) -> float | Unmodelled:
    """GiB of the host's memory that must be available when the server starts."""
    plan = plan_of(settings)
    if on_cpu(settings):
        return plan.requested_gib if isinstance(plan, MemoryPlan) else plan
    if not Machine(settings.host.memory_gib).is_unified:
        return Unmodelled("the GPU has a memory of its own, which is not looked at")
    # vLLM wants its share free at the start, also where a flag makes it take less.
    share = _share(settings.engine, settings.image.version) * settings.host.memory_gib
    return max(share, plan.requested_gib) if isinstance(plan, MemoryPlan) else share


def memory_held(command: Sequence[str], settings: Settings) -> float | Unmodelled:
    """GiB that a vLLM with this command holds on the unified memory of `settings`' host.

    By what it was told, since neither Docker nor nvidia-smi on a Spark tells what a driver holds.
    """
    if not any("vllm" in word or word.startswith("--") for word in command):
        return Unmodelled("it is no vLLM")
    first = next((at for at, word in enumerate(command) if word.startswith("-")), len(command))
    try:
        flags = EngineFlags.from_argv(command[first:])
    except ConfigError:
        return Unmodelled("its command cannot be read")
    return _share(flags, settings.image.version) * settings.host.memory_gib


def _share(flags: EngineFlags, version: Version | None) -> float:
    told = flags.get("gpu-memory-utilization")
    if isinstance(told, int | float):
        return float(told)
    return default_utilization(version)


def shortage(
    settings: Settings, needed: float, memory: Meminfo, returned: Mapping[str, float]
) -> Problem | None:
    """Why the memory will not do; `returned`: GiB by the container that gives them back."""
    there = memory.available_gib + sum(returned.values())
    if there >= needed:
        return None
    given = "".join(f", and {name} gives back about {gib:.1f}" for name, gib in returned.items())
    what = (
        f"the server needs {needed:.1f} GiB; {memory.available_gib:.1f} of the host's "
        f"{memory.total_gib:.1f} are available{given}"
    )
    stop = "stop what takes it (`docker stats --no-stream`, `ps aux --sort=-rss | head`)"
    return Problem("memory", what, f"{stop}, or {_smaller(settings, there)}")


_READS_AVAILABLE = Version.parse("0.11.1")
"""The first release that asks a Spark for available memory; older ones go by what CUDA calls free,
which leaves out the page cache."""


def page_cache_in_the_way(settings: Settings, needed: float, memory: Meminfo) -> str | None:
    """What to know where there is memory enough, but this vLLM may not see it."""
    version = settings.image.version
    if on_cpu(settings) or version is None or version >= _READS_AVAILABLE:
        return None
    if memory.free_gib >= needed:
        return None
    return (
        f"{memory.available_gib - memory.free_gib:.1f} GiB of the available memory are page cache, "
        f"which vLLM {version} may take for used; if it ends with `Free memory on device`: "
        "sync; echo 3 | sudo tee /proc/sys/vm/drop_caches"
    )


def _smaller(settings: Settings, gib: float) -> str:
    """Which key to lower to what, so that `gib` are enough."""
    if on_cpu(settings):
        return "lower vllm-spark:container.environment.VLLM_CPU_KVCACHE_SPACE"
    share = math.floor(100 * gib / settings.host.memory_gib) / 100
    key = "vllm-spark:engine.gpu-memory-utilization"
    return f"lower {key} to {share}" if share >= 0.1 else "take a smaller model"

"""Does the host have enough memory for the server now? Compares its need with what is available.

MemAvailable counts: on a Spark nvidia-smi reports no sizes, and MemFree leaves out the page cache,
which the kernel can free. An unknown amount is `Unmodelled` with the reason, never zero or enough.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import Gpu
from vllm_spark.deployment.review import plan_of
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.limits import default_utilization
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.problems import Problem, Unmodelled

_KIB_A_GIB = 2**20
_TOLERANCE_GIB = 3.0
"""Firmware and kernel take some memory at every boot: Sparks show 119.6 to 121.7 GiB."""


@dataclass(frozen=True)
class Meminfo:
    """A host's memory at one moment, in GiB."""

    total_gib: float
    available_gib: float
    free_gib: float


def read_meminfo(text: str) -> Meminfo:
    """Read the text of Linux's /proc/meminfo. ValueError if it is something else."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}
    if not {"MemTotal", "MemAvailable", "MemFree"} <= kib.keys():
        raise ValueError("no MemTotal and MemAvailable in it")
    total, available, free = (
        kib[name] / _KIB_A_GIB for name in ("MemTotal", "MemAvailable", "MemFree")
    )
    return Meminfo(total, available, free)


def on_cpu(settings: Settings) -> bool:
    """Whether the server uses no GPU."""
    return settings.image.reference.is_cpu or settings.container.gpus == "none"


def memory_needed(settings: Settings) -> float | Unmodelled:
    """GiB of the host's memory that must be available when the server starts."""
    plan = plan_of(settings)
    if on_cpu(settings):
        return plan.requested_gib if isinstance(plan, MemoryPlan) else plan
    if not settings.host.unified:
        return Unmodelled("the GPU has a memory of its own, and it does not say what is free")
    # vLLM requires its share to be free at the start, even if a flag makes it take less.
    share = _share(settings.engine, settings.image.version) * settings.host.memory_gib
    return max(share, plan.requested_gib) if isinstance(plan, MemoryPlan) else share


def memory_held(command: Sequence[str], settings: Settings) -> float | Unmodelled:
    """GiB that a vLLM with this command holds on the unified memory of `settings`' host.

    It follows from the flags: on a Spark neither Docker nor nvidia-smi reports a driver's memory.
    """
    if not any("vllm" in word or word.startswith("--") for word in command):
        return Unmodelled("it is no vLLM")
    try:
        _words, flags = EngineFlags.from_command(command)
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
    """The shortage, if there is one; `returned` maps a container to the GiB that it will free."""
    # A crash-looping container holds nothing: the sum must not exceed the host's memory.
    there = min(memory.total_gib, memory.available_gib + sum(returned.values()))
    if there >= needed:
        return None
    what = (
        f"the server needs {needed:.1f} GiB; {memory.available_gib:.1f} of the host's "
        f"{memory.total_gib:.1f} are available{_given_back(returned)}"
    )
    stop = "stop what takes it (`docker stats --no-stream`, `ps aux --sort=-rss | head`)"
    smaller = _smaller(settings, there, of=settings.host.memory_gib)
    return Problem("memory", what, f"{stop}, or {smaller}")


def gpu_shortages(
    settings: Settings, gpus: Iterable[Gpu], returned: Mapping[str, float]
) -> list[Problem]:
    """The GPUs with separate memory that have too little free. vLLM needs its share on each."""
    share = _share(settings.engine, settings.image.version)
    return [
        problem
        for gpu in gpus
        if (problem := _gpu_shortage(settings, gpu, share, returned)) is not None
    ]


def _gpu_shortage(
    settings: Settings, gpu: Gpu, share: float, returned: Mapping[str, float]
) -> Problem | None:
    if gpu.total_gib is None or gpu.free_gib is None:
        return None
    needed = share * gpu.total_gib
    there = min(gpu.total_gib, gpu.free_gib + sum(returned.values()))
    if there >= needed:
        return None
    what = (
        f"the server needs {needed:.1f} GiB; {gpu.free_gib:.1f} of {gpu.total_gib:.1f} are free"
        f"{_given_back(returned)}"
    )
    smaller = _smaller(settings, there, of=gpu.total_gib)
    fix = f"stop what takes it (`nvidia-smi` names the processes), or {smaller}"
    return Problem(f"memory of GPU {gpu.index}", what, fix)


def machine_misfits(
    settings: Settings, memory: Meminfo | None, gpus: Sequence[Gpu]
) -> list[Problem]:
    """Differences between the plan's machine and this one, with the key to set."""
    host, key = settings.host, "vllm-spark:host"
    if gpus and not on_cpu(settings) and gpus[0].is_unified != host.unified:
        has = "shares the host's memory" if gpus[0].is_unified else "has a memory of its own"
        what = (
            f"the plan is for another kind of machine: GPU {gpus[0].index}, {gpus[0].name}, {has}"
        )
        value = str(gpus[0].is_unified).lower()
        fix = f"pulumi config set --path {key}.unified {value}"
        return [Problem(f"{key}.unified", what, fix)]
    sizes = [gpu.total_gib for gpu in gpus if gpu.total_gib is not None]
    own_memory = not host.unified and not on_cpu(settings)
    total = memory.total_gib if memory is not None else None
    if own_memory:
        total = min(sizes, default=None)
    if total is None or host.memory_gib <= total + _TOLERANCE_GIB:
        return []
    what = f"the plan is for {host.memory_gib:.2f} GiB, and this machine has {total:.2f}"
    fix = f"pulumi config set --path {key}.memoryGiB {math.floor(100 * total) / 100}"
    return [Problem(f"{key}.memoryGiB", what, fix)]


def _given_back(returned: Mapping[str, float]) -> str:
    return "".join(f", and {name} gives back about {gib:.1f}" for name, gib in returned.items())


_READS_AVAILABLE = Version.parse("0.11.1")
"""The first release that reads a Spark's available memory; older ones use CUDA's free memory, which
leaves out the page cache."""


def page_cache_in_the_way(settings: Settings, needed: float, memory: Meminfo) -> str | None:
    """A hint for enough memory that this vLLM may not count as free."""
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


def _smaller(settings: Settings, gib: float, *, of: float) -> str:
    """The key to lower, and its value, so that `gib` of the GPU's memory are enough."""
    if on_cpu(settings):
        return "lower vllm-spark:container.environment.VLLM_CPU_KVCACHE_SPACE"
    share = math.floor(100 * gib / of) / 100
    key = "vllm-spark:engine.gpu-memory-utilization"
    return f"lower {key} to {share}" if share >= 0.1 else "take a smaller model"

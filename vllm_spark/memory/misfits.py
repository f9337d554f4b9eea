"""Why a memory plan cannot work, and which flag to change to what.

Every fix is computed from the plan, so that following it gives a plan without that problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from vllm_spark.flags.history import WHERE
from vllm_spark.memory.limits import GIB
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.problems import Problem, Unmodelled

HEADROOM_GIB = 8.0
"""What a Spark's own system needs: hosts froze with less, and 8 to 10 GiB are what users advise."""

_SMALLER_MODEL = (
    "take a smaller or a more strongly quantised model, or split it over more hosts with "
    "tensor-parallel-size"
)
_WORTH_SERVING = 1024
"""Tokens of context; a fix that leaves fewer helps nobody."""


def problems_of(plan: MemoryPlan | Unmodelled) -> list[Problem]:
    """Why the plan cannot work; empty if it fits, or if nothing is known about it."""
    if isinstance(plan, Unmodelled):
        return []
    problems = []
    if plan.pool_gib <= 0:
        problems.append(_no_pool(plan))
    elif plan.kv_blocks < plan.blocks_per_sequence:
        problems.append(_too_long(plan))
    if plan.headroom_gib < _needed_headroom(plan):
        problems.append(_no_headroom(plan))
    return problems


def pool_key(plan: MemoryPlan) -> str:
    """The config key that sizes the KV cache."""
    if plan.pool_source == "VLLM_CPU_KVCACHE_SPACE":
        return f"vllm-spark:container.environment.{plan.pool_source}"
    return f"{WHERE}.{plan.pool_source}"


def _needed_headroom(plan: MemoryPlan) -> float:
    """A GPU with its own memory, and a CPU beside its other work, only must not overflow."""
    on_spark = plan.host.is_unified and plan.pool_source != "VLLM_CPU_KVCACHE_SPACE"
    return HEADROOM_GIB if on_spark else 0.0


def _no_pool(plan: MemoryPlan) -> Problem:
    what = (
        f"{plan.weights_gib:.2f} GiB of weights and {plan.overhead.subtracted_gib:.2f} GiB of "
        f"run-time memory leave nothing of the requested {plan.requested_gib:.2f} GiB for the "
        "KV cache"
    )
    return Problem(pool_key(plan), what, _resized(plan, larger=True))


def _no_headroom(plan: MemoryPlan) -> Problem:
    what = (
        f"{plan.headroom_gib:.2f} GiB of {plan.host.memory_gib:.2f} are left to the host (vLLM "
        f"asks for {plan.requested_gib:.2f} and takes up to {plan.overhead.beyond_request_gib:.2f} "
        f"more under load), which needs {_needed_headroom(plan):.0f}"
    )
    return Problem(pool_key(plan), what, _resized(plan, larger=False))


def _too_long(plan: MemoryPlan) -> Problem:
    tokens = plan.kv_blocks * plan.limits.block_size
    what = (
        f"one sequence of {plan.max_model_len:,} tokens needs {_sequence_gib(plan):.2f} GiB of KV "
        f"cache, and there are {plan.pool_gib:.2f}"
    )
    fixes = [f"max-model-len to at most {tokens}"] if tokens else []
    smallest, largest = _useful_settings(plan)
    if smallest <= largest:
        fixes.append(f"{plan.pool_source} to at least {smallest}")
    sized_in_bytes = plan.pool_source in ("gpu-memory-utilization", "kv-cache-memory-bytes")
    halves = sized_in_bytes and plan.limits.kv_element_bytes == 2
    if halves and 2 * tokens >= plan.max_model_len:
        fixes.append("kv-cache-dtype to fp8")
    fix = f"set {', or '.join(fixes)}" if fixes else _SMALLER_MODEL
    return Problem(f"{WHERE}.max-model-len", what, fix)


def _resized(plan: MemoryPlan, larger: bool) -> str:
    """The value of the pool's flag that solves the problem, or what else to do if there is none."""
    smallest, largest = _useful_settings(plan)
    if smallest <= largest:
        if larger:
            return f"set {plan.pool_source} to at least {smallest}"
        return f"lower {plan.pool_source} to at most {largest}"
    blocks = _pool_gib_at(plan, largest) * GIB // plan.block_bytes
    tokens = int(blocks) * plan.limits.block_size
    if tokens >= _WORTH_SERVING:
        return f"set {plan.pool_source} to {largest} and max-model-len to at most {tokens}"
    return _SMALLER_MODEL


def _sequence_gib(plan: MemoryPlan) -> float:
    return plan.blocks_per_sequence * plan.block_bytes / GIB


def _useful_settings(plan: MemoryPlan) -> tuple[float, float]:
    """The pool's flag at its smallest (one full sequence) and its largest (head-room left)."""
    largest_gib = plan.pool_gib + plan.headroom_gib - _needed_headroom(plan)
    return (
        _setting(plan, _sequence_gib(plan), math.ceil),
        _setting(plan, largest_gib, math.floor),
    )


def _setting(plan: MemoryPlan, pool_gib: float, rounding: Callable[[float], int]) -> float:
    """The value of the pool's flag that makes a pool of `pool_gib`."""
    match plan.pool_source:
        case "gpu-memory-utilization":
            fixed = plan.requested_gib - plan.pool_gib
            return rounding(100 * (fixed + pool_gib) / plan.host.memory_gib) / 100
        case "kv-cache-memory-bytes":
            return rounding(pool_gib * GIB)
        case "num-gpu-blocks-override":
            return rounding(pool_gib * GIB / plan.block_bytes)
        case "VLLM_CPU_KVCACHE_SPACE":
            return rounding(pool_gib)


def _pool_gib_at(plan: MemoryPlan, setting: float) -> float:
    """The inverse of `_setting`."""
    match plan.pool_source:
        case "gpu-memory-utilization":
            fixed = plan.requested_gib - plan.pool_gib
            return setting * plan.host.memory_gib - fixed
        case "kv-cache-memory-bytes":
            return setting / GIB
        case "num-gpu-blocks-override":
            return setting * plan.block_bytes / GIB
        case "VLLM_CPU_KVCACHE_SPACE":
            return setting

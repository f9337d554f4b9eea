"""Why a memory plan cannot work, or may not, and which flag to change to what.

A plan is refused only where its optimistic bound fails too; where just the pessimistic one fails,
it is a warning. Every fix is computed from the pessimistic bound, so that following it gives a
plan without that problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from vllm_spark.flags.history import WHERE
from vllm_spark.memory.limits import GIB
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.problems import Problem, Unmodelled

HEADROOM_GIB = 8.0
"""What a Spark's own system needs: hosts froze with less, and 8 to 10 GiB are what users advise."""

LEAST_HEADROOM_GIB = 3.0
"""Below it a Spark does not start vLLM at all: its system alone takes more. Whole suites of
benchmarks ran with 6.1 GiB left (0.95)."""

Fits = Literal["yes", "maybe", "no"]

_SMALLER_MODEL = (
    "take a smaller or a more strongly quantised model, or split it over more hosts with "
    "tensor-parallel-size"
)
_WORTH_SERVING = 1024
"""Tokens of context; a fix that leaves fewer helps nobody."""


def problems_of(plan: MemoryPlan | Unmodelled) -> list[Problem]:
    """Why the plan cannot work; empty if it may fit, or if nothing is known about it."""
    if isinstance(plan, Unmodelled):
        return []
    found = [_cache_problem(plan, plan.at_best), _floor_problem(plan)]
    return [problem for problem in found if problem is not None]


def warnings_of(plan: MemoryPlan | Unmodelled) -> list[Problem]:
    """Why a plan that is not refused may not work, or works at a risk."""
    if isinstance(plan, Unmodelled):
        return []
    found = []
    if _cache_problem(plan, plan.at_best) is None:
        found.append(_cache_problem(plan, plan))
    if _floor_problem(plan) is None:
        found.append(_headroom_problem(plan))
    return [problem for problem in found if problem is not None]


def fits(plan: MemoryPlan) -> Fits:
    """`yes` if the cache holds a full sequence by both bounds, `maybe` by the optimistic one only.

    Little head-room is a warning and does not make it `maybe`: it is a risk of the host's.
    """
    if problems_of(plan):
        return "no"
    return "yes" if _cache_problem(plan, plan) is None else "maybe"


def pool_key(plan: MemoryPlan) -> str:
    """The config key that sizes the KV cache."""
    if plan.pool_source == "VLLM_CPU_KVCACHE_SPACE":
        return f"vllm-spark:container.environment.{plan.pool_source}"
    return f"{WHERE}.{plan.pool_source}"


def _cache_problem(plan: MemoryPlan, bound: MemoryPlan) -> Problem | None:
    """What is wrong with the cache by one bound, with a fix for the pessimistic one."""
    if bound.pool_gib <= 0:
        return _no_pool(plan, bound)
    return None if bound.holds_a_sequence else _too_long(plan, bound)


def _on_spark(plan: MemoryPlan) -> bool:
    """A GPU with its own memory, and a CPU beside its other work, only must not overflow."""
    return plan.host.is_unified and plan.pool_source != "VLLM_CPU_KVCACHE_SPACE"


def _needed_headroom(plan: MemoryPlan) -> float:
    return HEADROOM_GIB if _on_spark(plan) else 0.0


def _floor_problem(plan: MemoryPlan) -> Problem | None:
    """An error if too little is left to the host even before the server is under load."""
    floor = LEAST_HEADROOM_GIB if _on_spark(plan) else 0.0
    left = plan.host.memory_gib - plan.at_best.requested_gib
    if left >= floor:
        return None
    what = (
        f"{left:.2f} GiB of {plan.host.memory_gib:.2f} are left to the host (vLLM asks for "
        f"{plan.at_best.requested_gib:.2f}), which needs at least {floor:.0f}"
    )
    return Problem(pool_key(plan), what, _resized(plan, larger=False))


def _headroom_problem(plan: MemoryPlan) -> Problem | None:
    if plan.headroom_gib >= _needed_headroom(plan):
        return None
    what = (
        f"{plan.headroom_gib:.2f} GiB of {plan.host.memory_gib:.2f} are left to the host under "
        f"load (vLLM asks for {plan.requested_gib:.2f} and takes up to "
        f"{plan.overhead.beyond_request_gib:.2f} more)"
    )
    if _on_spark(plan):
        what += f"; with less than {HEADROOM_GIB:.0f}, hosts froze"
    return Problem(pool_key(plan), what, _resized(plan, larger=False))


def _no_pool(plan: MemoryPlan, bound: MemoryPlan) -> Problem:
    what = (
        f"{bound.weights_gib:.2f} GiB of weights and {bound.overhead.subtracted_gib:.2f} GiB of "
        f"run-time memory leave nothing of the requested {bound.requested_gib:.2f} GiB for the "
        "KV cache"
    )
    return Problem(pool_key(plan), what, _resized(plan, larger=True))


def _too_long(plan: MemoryPlan, bound: MemoryPlan) -> Problem:
    tokens = _longest(plan)
    certain = bound is plan.at_best
    what = (
        f"one sequence of {plan.max_model_len:,} tokens needs {plan.sequence_gib:.2f} GiB of KV "
        f"cache, and there are {bound.pool_gib:.2f}"
        + ("" if certain else f", {plan.at_best.pool_gib:.2f} at best")
    )
    fixes = [f"max-model-len to at most {tokens}"] if tokens else []
    smallest, largest = _useful_settings(plan)
    if smallest <= largest:
        fixes.append(f"{plan.pool_source} to at least {smallest}")
    sized_in_bytes = plan.pool_source in ("gpu-memory-utilization", "kv-cache-memory-bytes")
    halves = sized_in_bytes and plan.limits.kv_element_bytes == 2 and plan.layout.grows_evenly
    if halves and 2 * tokens >= plan.max_model_len:
        fixes.append("kv-cache-dtype to fp8")
    fix = f"set {', or '.join(fixes)}" if fixes else _SMALLER_MODEL
    return Problem(f"{WHERE}.max-model-len", what, fix)


def _longest(plan: MemoryPlan) -> int:
    """Tokens of the longest sequence that the pool holds for certain."""
    blocks = plan.layout.blocks(plan.pool_gib * GIB)
    return plan.layout.longest(blocks, plan.max_model_len)


def _resized(plan: MemoryPlan, larger: bool) -> str:
    """The value of the pool's flag that solves the problem, or what else to do if there is none."""
    smallest, largest = _useful_settings(plan)
    if smallest <= largest:
        if larger:
            return f"set {plan.pool_source} to at least {smallest}"
        return f"lower {plan.pool_source} to at most {largest}"
    blocks = plan.layout.blocks(_pool_gib_at(plan, largest) * GIB)
    tokens = plan.layout.longest(blocks, plan.max_model_len)
    if tokens >= _WORTH_SERVING:
        return f"set {plan.pool_source} to {largest} and max-model-len to at most {tokens}"
    return _SMALLER_MODEL


def _useful_settings(plan: MemoryPlan) -> tuple[float, float]:
    """The pool's flag at its smallest (one full sequence) and its largest (head-room left)."""
    largest_gib = plan.pool_gib + plan.headroom_gib - _needed_headroom(plan)
    blocks = plan.blocks_per_sequence + (1 if plan.layout.rules.reserves_null_block else 0)
    return (
        _setting(plan, blocks * plan.block_bytes / GIB, math.ceil),
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

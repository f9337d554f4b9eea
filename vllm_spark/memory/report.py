"""A memory plan as a stack output for programs and diffs, and as a table for people.

A preview shows a changed flag as a changed plan, so the output's numbers are rounded to what a
reader can use and its notes do not change with them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from vllm_spark.memory.misfits import fits, problems_of, warnings_of
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.problems import Unmodelled, listing

_Number = Callable[[MemoryPlan], float | None]

_NUMBERS: dict[str, tuple[_Number, int | None]] = {
    "weightsGiB": (lambda plan: plan.weights_gib, 2),
    "activationGiB": (lambda plan: plan.overhead.activation_gib, 2),
    "runtimeGiB": (lambda plan: plan.overhead.subtracted_gib, 2),
    "kvBytesPerToken": (
        lambda plan: plan.kv_bytes_per_token if plan.layout.grows_evenly else None,
        None,
    ),
    "kvPoolGiB": (lambda plan: max(0.0, plan.pool_gib), 2),
    "kvTokens": (lambda plan: plan.kv_tokens, None),
    "kvGiBPerFullSequence": (lambda plan: plan.sequence_gib, 3),
    "maxModelLen": (lambda plan: plan.max_model_len, None),
    "fullLengthSequences": (lambda plan: plan.full_length_sequences, 2),
    "requestedGiB": (lambda plan: plan.requested_gib, 2),
    "aboveRequestGiB": (lambda plan: plan.overhead.beyond_request_gib, 2),
    "hostHeadroomGiB": (lambda plan: plan.headroom_gib, 2),
    "rooflineTokensPerSecond": (lambda plan: plan.roofline_tokens_per_second, 1),
}
_BOUNDED = ("weightsGiB", "runtimeGiB", "kvPoolGiB", "kvTokens", "fullLengthSequences",
            "requestedGiB", "hostHeadroomGiB")  # fmt: skip
"""What differs between the bounds; `atBest` has the optimistic values."""

_VERDICTS = {"yes": "fits", "maybe": "MAY NOT FIT", "no": "DOES NOT FIT"}


def output_of(plan: MemoryPlan | Unmodelled) -> dict[str, object]:
    """The plan as the stack output `memoryPlan`, rounded so that a preview's diff reads well.

    The numbers are those of the pessimistic bound, and `atBest` has those of the optimistic one.
    For a model that is not modelled, all are None and `notModelled` says why.
    """
    if isinstance(plan, Unmodelled):
        nothing = dict.fromkeys([*_NUMBERS, "atBest", "weightsFrom", "fits"])
        return {**nothing, "notModelled": plan.reason, "notes": []}
    return {
        **{key: _rounded(key, plan) for key in _NUMBERS},
        "atBest": {key: _rounded(key, plan.at_best) for key in _BOUNDED},
        "weightsFrom": "config" if plan.shape.stored is None else "checkpoint",
        "fits": fits(plan),
        "notes": plan.notes(),
    }


def _rounded(key: str, plan: MemoryPlan) -> float | None:
    number, digits = _NUMBERS[key]
    value = number(plan)
    return None if value is None else round(value, digits)


def table(plan: MemoryPlan | Unmodelled, model: str) -> str:
    """The plan for people: the verdict first, then where the memory goes, then what is wrong."""
    if isinstance(plan, Unmodelled):
        return f"Memory plan for {model}: not modelled: {plan.reason}."
    rows = [
        ("weights", f"{plan.weights_gib:.2f} GiB", _weights(plan)),
        ("run-time memory", f"{plan.overhead.subtracted_gib:.2f} GiB", _runtime(plan)),
        ("KV cache", f"{plan.pool_gib:.2f} GiB", _cache(plan)),
        ("requested", f"{plan.requested_gib:.2f} GiB", f"by {plan.pool_source}"),
        ("left to the host", f"{plan.headroom_gib:.2f} GiB", _headroom(plan)),
        (
            "full sequences",
            f"{plan.full_length_sequences:.2f}",
            f"of {plan.max_model_len:,} tokens, {_gib(plan.sequence_gib)} of KV cache each",
        ),
        (
            "one stream, at most",
            f"{plan.roofline_tokens_per_second:.1f} tok/s",
            f"{plan.gigabytes_read_per_token:.2f} GB of weights a token at "
            f"{plan.host.bandwidth_gb_per_s:.0f} GB/s",
        ),
    ]
    lines = [f"Memory plan for {model}: {_VERDICTS[fits(plan)]}"]
    lines += [f"  {name:<20}{amount:>13}   {remark}" for name, amount, remark in rows]
    for note in plan.notes():
        lines += textwrap.wrap(note, 96, initial_indent="  note: ", subsequent_indent=" " * 8)
    for doubt in warnings_of(plan):
        lines.append(f"  warning: {doubt}")
    if problems := problems_of(plan):
        lines.append(listing(problems))
    return "\n".join(lines)


def _gib(amount: float) -> str:
    """Two digits that count, also for the small caches of hybrids."""
    return f"{amount:.2f} GiB" if amount >= 0.1 else f"{amount * 1024:.1f} MiB"


def _weights(plan: MemoryPlan) -> str:
    if plan.shape.stored is not None:
        return f"{plan.shape.stored.total:,} bytes in the checkpoint"
    stored = plan.limits.quantization
    form = stored.label if stored else f"{8 * plan.limits.dtype_bytes} bits"
    return f"{plan.shape.parameters:,} parameters, {form}"


def _cache(plan: MemoryPlan) -> str:
    remark = f"{plan.kv_tokens:,} tokens"
    if plan.layout.grows_evenly:
        remark += f" of {plan.kv_bytes_per_token:,} bytes"
    best = plan.at_best
    if best.kv_tokens > plan.kv_tokens:
        remark += f"; at best {best.pool_gib:.2f} GiB, {best.kv_tokens:,} tokens"
    return remark


def _headroom(plan: MemoryPlan) -> str:
    beyond = plan.overhead.beyond_request_gib
    loaded = f", when load makes vLLM take {beyond:.2f} beyond its request" if beyond else ""
    return f"of {plan.host.memory_gib:.2f}{loaded}"


def _runtime(plan: MemoryPlan) -> str:
    taken = plan.overhead
    parts = [(taken.activation_gib, "activations"), (taken.non_torch_gib, "CUDA")]
    if taken.graphs_counted:
        parts.append((taken.graphs_gib, "CUDA graphs"))
    parts += [
        (taken.vision_gib, "image encoder"),
        (taken.adapter_gib, "LoRA adapters"),
        (taken.host_gib, "processes"),
    ]
    return ", ".join(f"{what} {gib:.2f}" for gib, what in parts if gib)

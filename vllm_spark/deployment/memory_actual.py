"""The memory that vLLM really took, by the memory plan's keys, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.memory.report import output_of
from vllm_spark.problems import Unmodelled

if TYPE_CHECKING:  # every preview loads this module, and none asks a server or reads a log
    from vllm_spark.diagnosis.start_log import StartFacts
    from vllm_spark.gate.metrics import ServerMetrics


def actual_of(facts: StartFacts, metrics: ServerMetrics | None) -> dict[str, float]:
    """GiB and tokens by the keys of `memoryPlan`; only values that the log or /metrics reported."""
    told = {
        "weightsGiB": facts.weights_gib,
        "activationGiB": facts.peak_activation_gib,
        "kvPoolGiB": facts.available_kv_gib,
        "kvTokens": facts.kv_tokens or (metrics.kv_tokens if metrics else None),
        "maxModelLen": facts.max_model_len,
        "fullLengthSequences": facts.max_concurrency,
    }
    return {key: amount for key, amount in told.items() if amount is not None}


def compared(plan: MemoryPlan | Unmodelled, actual: Mapping[str, float]) -> dict[str, object]:
    """`actual` with `differencePercent`, its difference from the plan; positive means more."""
    planned = output_of(plan)
    differences = {}
    for key, amount in actual.items():
        expected = planned[key]
        if isinstance(expected, int | float) and expected:
            differences[key] = round(100 * (amount - expected) / expected, 1)
    return {**actual, "differencePercent": differences}

"""The failure catalogue: every known way in which vLLM does not start or dies, with its fix.

Order matters only between rules that match the same line: causes come before generalities, and
among equals the order of the files counts.
"""

from __future__ import annotations

from vllm_spark.diagnosis.failures import flags, hub, kernels, machine, memory, model, processes
from vllm_spark.diagnosis.failures.processes import EXIT_CODES, KILLED_FOR_MEMORY
from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_FILES = (hub, model, memory, kernels, machine, processes, flags)
CATALOGUE: tuple[Rule, ...] = tuple(
    sorted(
        (rule for rules in _FILES for rule in rules.RULES),
        key=lambda rule: rule.rank,
    )
)

__all__ = ["CATALOGUE", "EXIT_CODES", "KILLED_FOR_MEMORY", "Rank", "Rule", "Values"]

"""The failure catalogue: every known way in which vLLM does not start or dies, with its mend.

Order matters only between rules that match the same line: causes come before generalities, and
among equals the order of the files counts.
"""

from __future__ import annotations

from engine.failures import hub, kernels, machine, memory, model, processes, settings
from engine.failures.processes import EXIT_CODES, KILLED_FOR_MEMORY
from engine.failures.rule import Rank, Rule, Values

_FILES = (hub, model, memory, kernels, machine, processes, settings)
CATALOGUE: tuple[Rule, ...] = tuple(
    sorted(
        (rule for rules in _FILES for rule in rules.RULES),
        key=lambda rule: rule.rank,
    )
)

__all__ = ["CATALOGUE", "EXIT_CODES", "KILLED_FOR_MEMORY", "Rank", "Rule", "Values"]

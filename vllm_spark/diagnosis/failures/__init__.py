"""The failure catalogue: every known way in which vLLM does not start or dies, with its fix.

`rules` holds the rows, `rule` says what a row is, `remedies` which fixes a release can follow.
Order matters only between rules that match the same line: causes come before generalities, and
among equals the order of the files counts. What says where an error comes from (versions of
packages, Docker) comes before what says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from vllm_spark.diagnosis.failures.needles import needles
from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values
from vllm_spark.diagnosis.failures.rules import (
    docker,
    flags,
    gpu,
    hub,
    kernels,
    machine,
    memory,
    model,
    nodes,
    parts,
    processes,
    refused,
    versions,
    weights,
)
from vllm_spark.diagnosis.failures.rules.processes import EXIT_CODES, KILLED_FOR_MEMORY

_FILES = (
    versions, docker, hub, model, weights, memory, kernels, gpu, machine, nodes, processes, flags,
    refused, parts,
)  # fmt: skip
CATALOGUE: tuple[Rule, ...] = tuple(
    sorted(
        (rule for rules in _FILES for rule in rules.RULES),
        key=lambda rule: rule.rank,
    )
)
ORDER = {rule.id: number for number, rule in enumerate(CATALOGUE)}
"""The place of each rule: of two that match one message, the lower number explains more."""


def _by_needle(least: Rank) -> dict[str, set[int]]:
    index: dict[str, set[int]] = {}
    for number, rule in enumerate(CATALOGUE):
        for pattern in rule.patterns if rule.rank >= least else ():
            for needle in needles(pattern):
                index.setdefault(needle, set()).add(number)
    return index


_NEEDLES = _by_needle(Rank.ROOT)
_NEEDLES_OF_HINTS = _by_needle(Rank.HINT)


def candidates(text: str, *, hints_only: bool = False) -> Iterator[Rule]:
    """The rules that may match a text, the most telling first.

    `hints_only` leaves those out that name a cause: a request's error is none.
    """
    lowered = text.lower()
    numbers: set[int] = set()
    for needle, rules in (_NEEDLES_OF_HINTS if hints_only else _NEEDLES).items():
        if needle in lowered:
            numbers |= rules
    return (CATALOGUE[number] for number in sorted(numbers))


__all__ = [
    "CATALOGUE", "EXIT_CODES", "KILLED_FOR_MEMORY", "ORDER", "Rank", "Rule", "Values", "candidates",
]  # fmt: skip

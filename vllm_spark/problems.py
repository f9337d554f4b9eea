"""One shape for everything that can be wrong with a stack's config, so that it is said at once.

Checks return lists of `Problem`; the caller joins the lists and raises once (`errors.ConfigError`).
A person who has four mistakes in a config file reads four sentences, not one, four times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A mistake and its fix.

    `where` is the config key as the user writes it (`vllm-spark:engine.max-num-seqs`), `what` says
    what is wrong with which value and why, `fix` is an instruction that can be followed.
    """

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    fix: {self.fix}"


def listing(problems: Iterable[Problem]) -> str:
    """The problems as a numbered list, each with its fix on the next line."""
    return "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))


@dataclass(frozen=True)
class Unmodelled:
    """Stands in for a number that would be a guess. `reason` completes "not modelled: ...".

    A wrong memory plan ends in a frozen Spark, so a shape, format or flag that the planner does
    not know is answered with a reason, and a deployment goes on without a plan.
    """

    reason: str

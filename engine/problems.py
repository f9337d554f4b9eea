"""One shape for all that can be wrong with a stack's config, so that it is said at once.

Checks return lists of `Problem`; whoever runs them joins the lists and raises once. A person who
has four mistakes in a config file reads four sentences, not one, four times.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A mistake and its mend.

    `where` is the config key as the user writes it (`vllm-spark:engine.max-num-seqs`), `what` says
    what is wrong with which value and why, `mend` is an instruction that can be followed.
    """

    where: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    mend: {self.mend}"


class ConfigError(ValueError):
    """The stack's config cannot be deployed. Its text lists every problem with its mend."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(listing(problems))


def listing(problems: Iterable[Problem]) -> str:
    """The problems as a numbered list, one mend below each."""
    return "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))

"""The honest answer where numbers would be guesses: that there are none, and why.

A wrong memory plan ends in a frozen Spark, so shapes, formats and flags that the planner does not
know are answered with a reason, and a deployment goes on without a plan.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unmodelled:
    """Stands in for a shape or a plan. `reason` completes the sentence "not modelled: ..."."""

    reason: str

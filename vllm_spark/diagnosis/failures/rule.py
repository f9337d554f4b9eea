"""What a rule of the failure catalogue is: a text to look for, and what it means to a person.

The catalogue is data, so that it can be read, counted and tested row by row; the little
arithmetic that a fix needs (the utilization that would fit, the length that would) stands
beside the rows that use it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

Values = Mapping[str, str]
"""What a rule can name: the groups of its pattern, and what the log says of the start (`util`,
`port`, `model`, `version`, `phase`, `weights`, `max_model_len`, ...; "" where it says nothing)."""


_LONGEST_VALUE = 300


class Rank(IntEnum):
    """How much a match explains. The lower rank wins, among equals the earlier line."""

    ROOT = 0
    """Names the cause."""
    GENERAL = 1
    """Names the kind of failure and quotes the program's own words."""
    HINT = 2
    """May be harmless; explains a failure that nothing else explains."""
    CONSEQUENCE = 3
    """Says that something failed elsewhere."""


@dataclass(frozen=True)
class Rule:
    """A row of the catalogue.

    `patterns` are searched in the text of one line, the first that matches counts. `detail` is
    searched in the lines that follow it (a message's second half), its groups are added.
    `frame` must stand in the innermost frame of the traceback, where the message alone says too
    little. `compute` adds values, or returns None when the rule does not apply to these.
    `anywhere` marks what the system says, which counts outside of a traceback too.
    `versions` is where the text is known from; `source` says who writes it.
    """

    id: str
    patterns: tuple[str, ...]
    cause: str
    fix: str
    source: str
    versions: str = "0.8 to 0.33"
    rank: Rank = Rank.ROOT
    detail: str = ""
    frame: str = ""
    compute: Callable[[Values], Values | None] | None = None
    anywhere: bool = False
    levels: frozenset[str] = field(default=frozenset({"", "ERROR", "CRITICAL"}))

    @cached_property
    def compiled(self) -> tuple[re.Pattern[str], ...]:
        """The patterns, ready to search."""
        return tuple(re.compile(pattern) for pattern in self.patterns)

    @cached_property
    def compiled_detail(self) -> re.Pattern[str] | None:
        """The pattern for the lines that follow, if there is one."""
        return re.compile(self.detail) if self.detail else None

    def search(self, text: str) -> re.Match[str] | None:
        """The first pattern that matches."""
        for pattern in self.compiled:
            if found := pattern.search(text):
                return found
        return None

    def explain(self, values: Values) -> tuple[str, str] | None:
        """Cause and fix with the values filled in; None when the rule does not apply."""
        if self.compute is not None:
            try:
                more = self.compute(values)
            except (ValueError, ArithmeticError):  # garbled numbers
                return None
            if more is None:
                return None
            values = {**values, **more}
        known = _Known({name: _cut(value) for name, value in values.items()})
        return self.cause.format_map(known), self.fix.format_map(known)


def _cut(value: str) -> str:
    """A value that stands in a sentence: vLLM lists 300 architectures after its message."""
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


class _Known(dict[str, str]):
    """Values for a template; what the line does not name is an empty text."""

    def __missing__(self, key: str) -> str:
        return ""

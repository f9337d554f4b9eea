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

from vllm_spark.diagnosis.failures.remedies import for_release

Values = Mapping[str, str]
"""What a rule can name: the groups of its pattern, and what the log says of the server.

Facts of the start: `version`, `phase`, `weights`, `available_kv`. Settings by vLLM's names with
underscores (`gpu_memory_utilization`, `speculative_config`, ...); `model` is "the model" where the
log names none. Choices of vLLM: `architecture`, `attention`, `moe`. The error itself: `message`
(all lines of it), `frames` (the lines of its traceback). "" where the log says nothing."""


_LONGEST_VALUE = 300

# How a pattern is made one for a text without spaces.
_SPACE = re.compile(r"(?:\\s| )[+*?]?")
_WORD_EDGE = re.compile(r"\\b")
_LITERAL = re.compile(r"\\.|\[[^\]]*\]|\(\?P?<\w+>|\{[\d,]+\}|[^A-Za-z]")
_ENOUGH = 14  # letters


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

    `patterns` are searched in the text of one line, the first that matches counts; a pattern that
    begins with `(?s)` is searched in the exception's whole message. `detail` is searched in the
    lines that follow (a message's second half), its groups are added.
    Conditions: `frame` must match a frame of the traceback, and `unless` nothing in the message or
    the frames. `compute` adds values, or returns None when the rule does not apply to these.
    `fix` is one text, or the alternatives, of which the release in the log has to have the flags;
    an alternative may have several wordings, for different releases.
    `anywhere` marks what the system says, which counts outside of a traceback too.
    `about_flags` marks a fix that names flags because the release lacks them.
    `deaths_only` marks a rule so broad that an error that was only logged does not count.
    `root_of` lists rules whose match this one explains, if both match: a kernel's own complaint is
    the root of the CUDA error that follows it.
    `source` names the thread or the program that the text comes from.
    """

    id: str
    patterns: tuple[str, ...]
    cause: str
    fix: str | tuple[str | tuple[str, ...], ...]
    source: str
    rank: Rank = Rank.ROOT
    detail: str = ""
    frame: str = ""
    unless: str = ""
    compute: Callable[[Values], Values | None] | None = None
    anywhere: bool = False
    root_of: tuple[str, ...] = ()
    about_flags: bool = False
    deaths_only: bool = False
    levels: frozenset[str] = field(default=frozenset({"", "ERROR", "CRITICAL"}))

    @cached_property
    def compiled(self) -> tuple[re.Pattern[str], ...]:
        """The patterns for one line, ready to search."""
        return tuple(re.compile(p) for p in self.patterns if not p.startswith("(?s)"))

    @cached_property
    def compiled_whole(self) -> tuple[re.Pattern[str], ...]:
        """The patterns for a whole message."""
        return tuple(re.compile(p) for p in self.patterns if p.startswith("(?s)"))

    @cached_property
    def compiled_detail(self) -> re.Pattern[str] | None:
        """The pattern for the lines that follow, if there is one."""
        return re.compile(self.detail) if self.detail else None

    def search(self, text: str, message: str = "") -> re.Match[str] | None:
        """The first pattern that matches a line, or the whole message that the line ends."""
        for pattern in self.compiled:
            if found := pattern.search(text):
                return found
        for pattern in self.compiled_whole if message else ():
            if found := pattern.search(message):
                return found
        return None

    @cached_property
    def compiled_spaceless(self) -> tuple[re.Pattern[str], ...]:
        """The patterns for a text that lost its spaces; none of those that say too little then."""
        squeezed = (_WORD_EDGE.sub("", _SPACE.sub("", pattern)) for pattern in self.patterns)
        return tuple(re.compile(p) for p in squeezed if len(_LITERAL.sub("", p)) >= _ENOUGH)

    def search_spaceless(self, text: str) -> re.Match[str] | None:
        """The first pattern that matches a line from which all spaces were taken."""
        return next((f for p in self.compiled_spaceless if (f := p.search(text))), None)

    def fits(self, message: str, frames: str) -> bool:
        """Whether the conditions on message and traceback hold."""
        if self.frame and not re.search(self.frame, frames):
            return False
        return not (self.unless and re.search(self.unless, f"{message}\n{frames}"))

    def explain(self, values: Values) -> tuple[str, str] | None:
        """Cause and fix with the values filled in; None when the rule does not apply."""
        if self.compute is not None:
            try:
                more = self.compute(values)
            except (ValueError, ArithmeticError):  # garbled numbers
                return None
            if more is None:
                return None
        else:
            more = {}
        known = _Known({**{name: _cut(value) for name, value in values.items()}, **more})
        options = (self.fix,) if isinstance(self.fix, str) else self.fix
        filled = [
            option.format_map(known)
            if isinstance(option, str)
            else tuple(wording.format_map(known) for wording in option)
            for option in options
        ]
        cause = self.cause.format_map(known)
        if self.about_flags:
            return cause, "; ".join(text for text in filled if isinstance(text, str))
        return cause, for_release(filled, values.get("version", ""))


def _cut(value: str) -> str:
    """A value that stands in a sentence: vLLM lists 300 architectures after its message."""
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


class _Known(dict[str, str]):
    """Values for a template; what the line does not name is an empty text."""

    def __missing__(self, key: str) -> str:
        return ""

"""Words that must stand in a line before a pattern can match it.

The catalogue has some 500 patterns and an error log may have 100,000 lines. Whether a word stands
in a line is known 50 times sooner than whether a pattern matches, and almost no line has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

# Python's own parser of patterns; it has no public name since 3.11 retired sre_parse.
parser: Any = import_module("re._parser")
codes: Any = import_module("re._constants")

_SHORTEST = 3


def needles(pattern: str) -> frozenset[str]:
    """In lower case: at least one of them stands in every text that matches; empty if unknown."""
    return _of_sequence(list(parser.parse(pattern)))


def _of_sequence(items: Sequence[tuple[Any, Any]]) -> frozenset[str]:
    """The set of the item whose words are longest: all items have to match."""
    found: list[frozenset[str]] = []
    run = ""
    for code, value in items:
        if code is codes.LITERAL:
            run += chr(value)
            continue
        found.append(_word(run))
        run = ""
        found.append(_of_item(code, value))
    found.append(_word(run))
    return max(found, key=lambda words: min(map(len, words), default=0))


def _word(run: str) -> frozenset[str]:
    return frozenset({run.lower()}) if len(run) >= _SHORTEST else frozenset()


def _of_item(code: Any, value: Any) -> frozenset[str]:
    if code is codes.SUBPATTERN:
        return _of_sequence(list(value[-1]))
    if code is codes.BRANCH:
        return _of_any(_of_sequence(list(branch)) for branch in value[1])
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT) and value[0] > 0:
        return _of_sequence(list(value[2]))
    return frozenset()


def _of_any(branches: Iterable[frozenset[str]]) -> frozenset[str]:
    sets = list(branches)
    return frozenset().union(*sets) if all(sets) else frozenset()

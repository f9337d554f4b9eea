"""Finds out whether a quantisation config means a layer: the formats name layers in five ways.

`re:.*mlp.gate$`, `model.layers.0*`, a full name, a part of one (`mlp.gate`), or a class (`Linear`).
Checkpoints put the language model below different prefixes, which do not matter here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache

_PREFIXES = ("model.", "language_model.", "backbone.")
_FULL = ("", "model.", "model.language_model.", "language_model.model.", "backbone.")
"""Prefixes of the language model, as regular expressions and wildcards may spell them out."""

EVERY_LINEAR = "Linear"


def without_prefix(name: str) -> str:
    """`layers.0.mlp` for `model.language_model.layers.0.mlp`."""
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


class LayerNames:
    """A set of patterns, fast for thousands of plain names. Immutable."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._regexes = tuple(
            re.compile(pattern[3:]) for pattern in self.patterns if pattern.startswith("re:")
        )
        rest = [pattern for pattern in self.patterns if not pattern.startswith("re:")]
        self._wild = tuple(pattern for pattern in rest if set("*?[") & set(pattern))
        self._plain = frozenset(without_prefix(name) for name in rest if name not in self._wild)

    def __contains__(self, layer: object) -> bool:
        return self._has(str(layer))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerNames) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def __repr__(self) -> str:
        return f"LayerNames({self.patterns!r})"

    @lru_cache(maxsize=4096)  # noqa: B019  # few instances, which live as long as the process
    def _has(self, layer: str) -> bool:
        if EVERY_LINEAR in self._plain or not self.patterns:
            return bool(self.patterns)
        short = without_prefix(layer)
        parts = short.split(".")
        return (
            any(
                ".".join(parts[first:last]) in self._plain
                for first in range(len(parts) if self._plain else 0)
                for last in range(first + 1, len(parts) + 1)
            )
            or any(
                fnmatchcase(prefix + short, pattern) for pattern in self._wild for prefix in _FULL
            )
            or any(regex.match(prefix + short) for regex in self._regexes for prefix in _FULL)
        )

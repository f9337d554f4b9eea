"""The log of a starting server as the health gate reads it: once, as it comes, in constant memory.

Besides phase and cause it detects progress. A line that only repeats an earlier one with other
numbers, such as a warning that comes every minute, is no progress.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

from vllm_spark.diagnosis.verdict import LogDiagnosis
from vllm_spark.redaction import redacted

REMEMBERED_LINES = 50
SHOWN_LINES = 15


class FollowedLog(LogDiagnosis):
    """Reads lines with their times. `moved` is the time at which the start last made progress.

    `version` is the vLLM release, None if only the log can tell it.
    """

    def __init__(self, now: float, version: str | None) -> None:
        super().__init__(version)
        self.moved = now
        self._tail: deque[str] = deque(maxlen=SHOWN_LINES)
        self._recent: deque[str] = deque(maxlen=REMEMBERED_LINES)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, with secrets masked."""
        return tuple(map(redacted, self._tail))

    def take_in(self, lines: Iterable[str], now: float) -> None:
        """Read the lines since the last call."""
        for line in lines:
            before = self.start.progress
            self.feed(line)
            self._tail.append(line)
            said = re.sub(r"\d+", "", line)
            if said not in self._recent or self.start.progress != before:
                self.moved = now
                self._recent.append(said)

"""A pasted log as it was before somebody's viewer, terminal or screenshot changed it.

Repairs only rearrange what stands there. What the lines prove by themselves (times that run
backwards, line ends written as two characters) is repaired before reading. Joining wrapped lines is
a guess, so those readings are compared with the lines as they stand.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from vllm_spark.diagnosis.log_lines import shortened

LONGEST_PASTE = 20_000
"""Lines up to which a log is held in memory to see in which order they stand."""

_LONGEST_REPAIR = 2_000
"""Lines up to which a log is read again in other forms, each time whole."""

_TIME = re.compile(
    r"(?:\b\d{4}-\d\d-\d\d[T ]|\b\d\d-\d\d |\b[A-Z][a-z]{2} [ \d]\d )(\d\d:\d\d:\d\d(?:[.,]\d+)?)"
)
_LOST_SPACES = re.compile(
    r"mostrecentcalllast|[a-z]{22}|\b(?:INFO|WARNING|ERROR)\d\d-\d\d|^\S{70,}$"
)
_HEAD_WITHOUT_SPACES = re.compile(
    r"^(?:\(?\w{0,40}pid=\d+\)?)?(?:(?:ERROR|CRITICAL)\d\d-\d\d ?\d\d:\d\d:\d\d ?\[[\w.]+:\d+\])?"
)
_TRACEBACK = "Traceback (most recent call last)"
# What begins a line of vLLM's, Python's or the shell's.
_BEGINS = re.compile(
    r"\([A-Za-z_]\w{0,40}(?: [^()]{0,40})?pid=\d+|(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)[ :]"
    r"|Traceback \(most|\s*File \"|[\w.]+(?:Error|Exception|Exit|Interrupt)\b|\s*\^"
    r"|\d{4}-\d\d-\d\d[T ]|[A-Z][a-z]{2} [ \d]\d \d\d:|\[rank\d|usage: |# |\s*$"
)
_HEADED = re.compile(
    r"^.{0,60}?(?:\([A-Za-z_]\w{0,40}(?: [^()]{0,40})?pid=\d+[^()]*\)"
    r"|\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d )"
)
_PREFIX = 6  # characters that begin most lines of a log with one prefix


def as_written(lines: list[str]) -> list[str]:
    """The lines as the program wrote them: one by one, the oldest first."""
    lines = _with_line_ends(lines)
    clocks = [found for line in lines if (found := _TIME.findall(line, 0, 120))]
    back, forth = _directions([times[0] for times in clocks])
    if back == forth:  # what saved the log put one time before all its lines
        back, forth = _directions([times[-1] for times in clocks if len(times) > 1])
    if back > forth or (back == forth and _upside_down(lines)):
        return lines[::-1]
    return lines


def _directions(times: list[str]) -> tuple[int, int]:
    """How often a time is earlier than the one before it, and how often later."""
    pairs = list(pairwise(times))
    back = sum(later < earlier for earlier, later in pairs)
    return back, sum(later > earlier for earlier, later in pairs)


def _with_line_ends(lines: list[str]) -> list[str]:
    """A log in one line, as a field of JSON or with the characters `\\n` in place of line ends."""
    text = "\n".join(lines)
    if len(lines) > 4 or text.count("\\n") < 2 * len(lines):
        return lines
    try:
        found = list(_texts(json.loads(text)))
    except ValueError:
        found = []
    if not found:
        text = re.sub(r"(?<!\\)(?:\\r)?\\n", "\n", text).replace('\\"', '"').replace("\\t", "\t")
    return "\n".join(found or [text]).splitlines()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and "\n" in value:
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _upside_down(lines: list[str]) -> bool:
    """Whether tracebacks stand on their head: their frames above their first line."""
    after = before = 0
    for above, line in itertools.pairwise(lines):
        after += _TRACEBACK in above and 'File "' in line
        before += _TRACEBACK in line and 'File "' in above
    return before > after


def repaired(lines: list[str]) -> Iterator[list[str]]:
    """The lines as they may have been, the likeliest first; nothing for a log too long."""
    if len(lines) > _LONGEST_REPAIR:
        return
    for joined in (_unwrapped(lines), _joined(lines)):
        if joined != lines:
            yield joined
    if len(lines) > 1 and not any(map(_TIME.search, lines)):
        yield lines[::-1]


def looks_wrapped(lines: list[str]) -> bool:
    """Whether line ends stand where none was: lines without the head that most others have."""
    if not 1 < len(lines) <= _LONGEST_REPAIR:
        return False
    lengths = [len(line.rstrip()) for line in lines]
    width = max(lengths)
    cut = [
        line
        for length, line in zip(lengths, lines[1:], strict=False)
        if width >= 40 and length >= width - 1 and not _BEGINS.match(line)
    ]
    headed = _headed(lines)
    return len(cut) > 1 or (len(lines) * 0.3 < len(headed) < len(lines) * 0.95)


def _headed(lines: list[str]) -> set[int]:
    """The numbers of the lines that begin as most lines of this log do."""
    beginnings = Counter(line[:_PREFIX] for line in lines if line.strip())
    prefix, many = next(iter(beginnings.most_common(1)), ("", 0))
    common = prefix if many > len(lines) * 0.3 and prefix.strip() else None
    return {
        number
        for number, line in enumerate(lines)
        if _HEADED.match(line) or (common and line.startswith(common)) or not line.strip()
    }


def _unwrapped(lines: list[str]) -> list[str]:
    """Without the line ends that a terminal made at one width."""
    width = max((len(line.rstrip("\r\n")) for line in lines), default=0)
    if width < 20:
        return lines
    joined: list[str] = []
    last = ""
    for line in lines:
        bare = line.rstrip("\r\n")
        if joined and len(last) >= width - 1 and last.strip() and not _BEGINS.match(bare):
            joined[-1] += " " * (width - len(last)) + bare
        else:
            joined.append(bare)
        last = bare
    return joined


def _joined(lines: list[str]) -> list[str]:
    """Every line that does not begin like the others is the rest of the one above."""
    headed = _headed(lines) if lines else set()
    strict = len(headed) > len(lines) * 0.3
    lengths = [len(line.rstrip()) for line in lines]
    width = max(lengths, default=0)
    at_any_character = lengths.count(width) > (len(lines) - len(headed)) / 2
    joined: list[str] = []
    last = ""
    for number, line in enumerate(lines):
        bare = line.rstrip("\r\n")
        begins = number in headed if strict else bool(_BEGINS.match(bare))
        if joined and bare.strip() and not begins:
            glued = at_any_character and len(last) >= width
            gap = "" if glued or last.endswith(" ") or bare[:1].isspace() else " "
            joined[-1] += gap + bare
        else:
            joined.append(bare)
        last = bare
    return joined


def without_spaces(lines: list[str]) -> list[str]:
    """The lines without any space and head, where a screenshot's text recognition lost most."""
    if len(lines) > _LONGEST_REPAIR or not any(map(_LOST_SPACES.search, lines)):
        return []
    return [_HEAD_WITHOUT_SPACES.sub("", "".join(shortened(line).split())) for line in lines]

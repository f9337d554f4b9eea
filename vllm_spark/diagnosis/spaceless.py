"""What a screenshot's text says whose spaces were lost: the catalogue alone.

No line has its form any more, so neither processes nor levels nor tracebacks can be told apart. The
patterns are searched without their spaces, and only those that hold enough letters to be sure.
"""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures import CATALOGUE, Rank
from vllm_spark.diagnosis.pastes import without_spaces

_NO_ERROR = re.compile(r"(?:INFO|WARNING|DEBUG)(?:\d\d-\d\d|:|\[)|Namespace\(|non-defaultargs")
_NAMED = ("util", "port", "phase", "weights", "available_kv", "kv_cache_memory_bytes")


def match_without_spaces(lines: list[str], version: str) -> tuple[str, str, str, str] | None:
    """The rule's id, cause, fix and the line; None if no spaces are lost or nothing matches."""
    squeezed = without_spaces(lines)
    whole = "\n".join(squeezed)
    for rule in CATALOGUE:
        for text, line in zip(squeezed, lines, strict=False):
            if rule.rank > Rank.GENERAL or _NO_ERROR.search(text):
                continue
            found = rule.search_spaceless(text)
            if found is None or not rule.fits(text, whole):
                continue
            values = {"version": version, "model": "the model", "text": text, "message": text}
            named = {name: value for name, value in found.groupdict().items() if value}
            explained = rule.explain(
                {**dict.fromkeys(_NAMED, ""), **values, "frames": whole, **named}
            )
            if explained:
                return rule.id, *explained, line
    return None

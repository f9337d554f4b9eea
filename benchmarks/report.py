"""Formats results as tables, with the machine that produced them."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import docker

from vllm_spark.project import ROOT

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and minimum and maximum in brackets: `0.16 (0.14 to 0.21)`."""
    median = statistics.median(values)
    if len(values) == 1:
        return f"{median:,.{digits}f}"
    return f"{median:,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quoted(text: str, longest: int = 110) -> str:
    """A program's message as one line in a table cell."""
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text[: longest - 1]}…`" if len(text) > longest else f"`{text}`"


def machine() -> str:
    """The machine: cores, processor, Docker version."""
    version = docker.from_env().version()["Version"]
    return f"{os.cpu_count()} cores, {_processor()}, Docker {version}"


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return " ".join(found[1].split()) if found else os.uname().machine


def record(name: str, text: str) -> None:
    """Write the text into the document, between the two markers with this name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = DOCUMENT.read_text().partition(begin)
    _, _, after = rest.partition(end)
    DOCUMENT.write_text(f"{before}{begin}{text}\n{end}{after}")

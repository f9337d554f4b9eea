"""The answer about a log, with nothing in it that must not be shown, and the text of an issue.

A failure that the catalogue lacks is worth an issue, so that the next release has it. Its text
holds what a maintainer would ask for first: the release, the flags, the phase, and the lines that
matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vllm_spark.redaction import redacted

_MOST_SETTINGS = 30
_PRIVATE = {"model", "served_model_name", "host", "uds", "root_path", "download_dir"}


@dataclass(frozen=True)
class Diagnosis:
    """What became of a server. `evidence` are lines of its log, secrets taken out.

    `healthy`: it served, whether or not it was stopped later. `failed`: it will not serve.
    `unknown`: the log does not decide. `rule` is the id in the catalogue, "" without one. `issue`
    is the text of an issue for a failure that the catalogue lacks, else "".
    """

    verdict: Literal["failed", "healthy", "unknown"]
    cause: str
    fix: str
    evidence: tuple[str, ...] = ()
    rule: str = ""
    issue: str = ""


def shown(text: str) -> str:
    """Without secrets, and without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in redacted(text))


def shown_lines(text: str) -> str:
    """`shown` for a text of several lines."""
    return "\n".join(map(shown, text.splitlines()))


def issue_text(
    version: str,
    settings: Mapping[str, str],
    chosen: Mapping[str, str],
    doing: str,
    lines: Sequence[str],
) -> str:
    """Markdown. `settings` by vLLM's names with underscores; `doing` is the phase of the start.

    The caller takes the secrets out.
    """
    flags = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in sorted(settings.items())
        if name not in _PRIVATE
    ][:_MOST_SETTINGS]
    facts = [f"{name}: {value}" for name, value in chosen.items()]
    return "\n".join(
        [
            "**diagnose does not know this failure**",
            "",
            f"- vLLM: {version or 'not in the log'}",
            f"- model: {settings.get('model', 'not in the log')}",
            f"- flags: {' '.join(flags) or 'not in the log'}",
            f"- it was: {doing}{''.join(f'; {fact}' for fact in facts)}",
            "- GPU, driver, image: (please add)",
            "",
            "```",
            *lines,
            "```",
        ]
    )

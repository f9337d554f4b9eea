"""The text of an issue about a failure that the catalogue lacks, so that the next release has it.

It holds what a maintainer would ask for first: the release, the flags, the phase, and the lines
that matter. The caller takes the secrets out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MOST_SETTINGS = 30
_PRIVATE = {"model", "served_model_name", "host", "uds", "root_path", "download_dir"}


def issue_text(
    version: str,
    settings: Mapping[str, str],
    chosen: Mapping[str, str],
    doing: str,
    lines: Sequence[str],
) -> str:
    """Markdown. `settings` by vLLM's names with underscores; `doing` is the phase of the start."""
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

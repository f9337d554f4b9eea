"""The form of every generated table."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; every row has a cell for each heading."""
    lines = [head, ["---"] * len(head), *rows]
    # A browser would read <stack> as an HTML tag.
    return "\n".join("| " + " | ".join(line).replace("<", "&lt;") + " |" for line in lines)

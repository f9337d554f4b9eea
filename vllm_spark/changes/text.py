"""Strings from stack files as data: printable, on one line, and cut.

A pull request may come from anyone, and its stack files end up in a terminal, in JSON and in a
comment. A string there must not move the cursor, begin a heading, load an image, mention a person
or fill the page, so every string of a report passes `harmless`, and every string in Markdown
`code`.
"""

from __future__ import annotations

from vllm_spark.redaction import redacted


def harmless(text: str, most: int) -> str:
    """The text as one line of at most `most` printable characters, without known secrets.

    What is not printable appears as Python writes it, such as `\\n`.
    """
    # Cut before any pattern sees it, because a stack file may hold megabytes. What this cut leaves
    # of a secret is beyond the second one.
    line = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode()
        for one in redacted(text[: 4 * most])
    )
    whole = len(line) <= most and len(text) <= 4 * most
    return line if whole else f"{line[: most - 1]}…"


def code(text: str) -> str:
    """The text as a code span of Markdown, also in a cell of a table.

    GitHub finds no link, image, HTML, mention, issue or emoji in a code span. The two characters
    that could end the span or the cell are escaped.
    """
    inner = text.replace("`", "\\x60").replace("|", "\\x7c")
    return f"`{inner}`" if inner.strip() else "(empty)"

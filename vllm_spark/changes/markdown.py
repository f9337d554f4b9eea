"""A report as Markdown, for a comment and for a terminal: the summary first, then each stack.

It is made from the report alone, so a comment can be made without the code of a pull request.
Every string of the report becomes a code span; everything else is written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vllm_spark.changes.report import (
    Downtime,
    Finding,
    ImageVersion,
    Memory,
    Report,
    StackChange,
)
from vllm_spark.changes.text import code

MOST_BYTES = 60_000
"""GitHub takes comments of 65,536 characters."""

_LABELS = {
    "weightsGiB": "weights, GiB",
    "activationGiB": "activations, GiB",
    "runtimeGiB": "run-time memory, GiB",
    "kvBytesPerToken": "KV cache a token, bytes",
    "kvPoolGiB": "KV cache, GiB",
    "kvTokens": "KV cache, tokens",
    "kvGiBPerFullSequence": "KV cache a full sequence, GiB",
    "maxModelLen": "longest sequence, tokens",
    "fullLengthSequences": "full sequences",
    "requestedGiB": "requested, GiB",
    "aboveRequestGiB": "beyond the request under load, GiB",
    "hostHeadroomGiB": "left to the host, GiB",
    "rooflineTokensPerSecond": "one stream, at most, tokens/s",
}
_FITS = {"yes": "fits", "maybe": "may not fit", "no": "does not fit", "unknown": "not modelled"}
_BASE_CODE = {
    "head": "The stacks of both versions were evaluated with the code of the second one.",
    "base": "The first version was evaluated with its own code, and the second one's packages.",
}
_IN_SUMMARY = ("kvTokens", "hostHeadroomGiB")


def markdown(report: Report, most_bytes: int = MOST_BYTES) -> str:
    """The report in at most `most_bytes` bytes; stacks that do not fit are named at the end."""
    between = f"from {code(report.base)} to {code(report.head)}"
    if not report.stacks:
        return f"No stack changes {between}.\n"
    head = [f"### What changes {between}", "", _counts(report.stacks), ""]
    head += ["| stack | change | container | memory |", "|---|---|---|---|"]
    rows = [_row(stack) for stack in report.stacks]
    details = [_details(stack) for stack in report.stacks]
    notes = ["", _BASE_CODE[report.base_code]] if report.base_code else []
    room = most_bytes - _size([*head, *notes, _left_out(len(details))])
    shown_rows = _fitting(rows, room)
    shown = _fitting(details, room - _size(shown_rows)) if len(shown_rows) == len(rows) else []
    lines = [*head, *shown_rows, *notes, *shown]
    if left := len(details) - len(shown):
        lines.append(_left_out(left))
    return "\n".join(lines) + "\n"


def _counts(stacks: Sequence[StackChange]) -> str:
    counted = dict.fromkeys(("refused", "changed", "new", "renamed", "gone"), 0)
    for stack in stacks:
        counted[stack.status] = counted.get(stack.status, 0) + 1
    told = [f"{count} {status}" for status, count in counted.items() if count]
    return f"**Stacks: {', '.join(told)}.**"


def _row(stack: StackChange) -> str:
    change = f"renamed from {code(stack.was)}" if stack.was is not None else stack.status
    if stack.changes and stack.status != "new":
        change += f", {_plural(len(stack.changes), 'key')}"
    cells = [code(stack.name), change, _container(stack.downtime), _memory_in_short(stack)]
    return f"| {' | '.join(cells)} |"


def _details(stack: StackChange) -> str:
    blocks = [f"\n#### {code(stack.name)}: {stack.status}"]
    if stack.new_refusals:
        blocks.append(_findings("Refused: `up` would stop with", stack.new_refusals))
    if stack.changes:
        rows = [
            [code(one.key), _value(one.old), _value(one.new), code(one.about) if one.about else ""]
            for one in stack.changes
        ]
        blocks.append(_table(["key", "old", "new", "what it is"], rows))
    if stack.image_before or stack.image_after:
        blocks.append(_image(stack.image_before, stack.image_after))
    if stack.memory_before or stack.memory_after:
        blocks.append(_memory(stack.memory_before, stack.memory_after))
    if stack.downtime is not None:
        source = f" Source: {code(stack.downtime.source)}." if stack.downtime.source else ""
        blocks.append(f"**Container:** {_container(stack.downtime)}.{source}")
    if stack.new_warnings:
        blocks.append(_findings("New warnings", stack.new_warnings))
    if stack.exceptions:
        rows = [[code(one.rule), code(one.reason)] for one in stack.exceptions]
        blocks.append("**Exceptions from the policy**\n\n" + _table(["rule", "reason"], rows))
    if stack.unknowns:
        blocks.append("**Not known before the merge**\n\n" + _list(stack.unknowns))
    return "\n\n".join(blocks)


def _findings(title: str, findings: Iterable[Finding]) -> str:
    lines = [f"- {code(one.where)}: {code(one.what)}\n  - fix: {code(one.fix)}" for one in findings]
    return f"**{title}**\n\n" + "\n".join(lines)


def _image(before: ImageVersion | None, after: ImageVersion | None) -> str:
    if after is not None and before == after:
        release = f"vLLM {code(after.vllm)}" if after.vllm else "its vLLM is not known"
        return f"**Image:** {code(after.name)}, {release}; as before"

    def told(image: ImageVersion | None) -> list[str]:
        if image is None:
            return ["", "", ""]
        digest = code(image.digest) if image.digest else "not in the name"
        return [code(image.name), digest, code(image.vllm) if image.vllm else "not known"]

    names = ["image", "digest", "vLLM"]
    rows = [list(row) for row in zip(names, told(before), told(after), strict=True)]
    return _table(["", "before", "after"], rows)


def _memory(before: Memory | None, after: Memory | None) -> str:
    """The verdict, and the numbers that moved."""
    rows = [["memory plan", _verdict(before), _verdict(after)]]
    old = before.numbers if before else {}
    new = after.numbers if after else {}
    rows += [
        [_LABELS.get(key) or code(key), _number(old.get(key)), _number(new.get(key))]
        for key in dict.fromkeys([*new, *old])
        if old.get(key) != new.get(key)
    ]
    if before is not None and before == after:
        return f"**Memory plan:** {_verdict(after)}; as before"
    return _table(["", "before", "after"], rows)


def _verdict(memory: Memory | None) -> str:
    if memory is None:
        return ""
    reason = f": {code(memory.reason)}" if memory.reason else ""
    return f"{_FITS[memory.fits]}{reason}"


def _memory_in_short(stack: StackChange) -> str:
    before, after = stack.memory_before, stack.memory_after
    if after is None:
        return ""
    told = [_FITS[after.fits]]
    old = before.numbers if before else {}
    for key in _IN_SUMMARY:
        now, was = after.numbers.get(key), old.get(key)
        if now is not None and now != was:
            moved = f"{_number(was)} → {_number(now)}" if was is not None else _number(now)
            told.append(f"{_LABELS[key]}: {moved}")
    return "; ".join(told)


def _container(downtime: Downtime | None) -> str:
    if downtime is None:
        return ""
    words = {"updated": "updated in place", "unknown": "not known", "unchanged": "stays"}
    told = words.get(downtime.container, downtime.container)
    if downtime.container != "replaced":
        return told
    if downtime.seconds is None:
        return f"{told}; how long it does not answer is not known"
    return f"{told}; does not answer for about {downtime.seconds:,.0f} s"


def _value(value: str | None) -> str:
    return "not set" if value is None else code(value)


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:,.10g}"


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {code(sentence)}" for sentence in sentences)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _left_out(count: int) -> str:
    return (
        f"\n{_plural(count, 'stack')} left out here, because a comment has a limit: "
        "`vllm-spark plan --base REF` prints all."
    )


def _fitting(texts: Sequence[str], room: int) -> list[str]:
    """The first ones that fit into so many bytes."""
    shown: list[str] = []
    for text in texts:
        room -= _size([text])
        if room < 0:
            break
        shown.append(text)
    return shown


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)

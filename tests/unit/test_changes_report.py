"""A report from anyone is data: its strings, its size, and what it may hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_spark.changes.markdown import MOST_BYTES, markdown
from vllm_spark.changes.report import (
    ConfigChange,
    Downtime,
    Finding,
    ImageVersion,
    Memory,
    PolicyException,
    Report,
    StackChange,
    Step,
    read_report,
)
from vllm_spark.errors import ChangesError

HOSTILE = {
    "a line end": "a\n## Approved\n- [x] by @octocat",
    "a code fence": "```\n</details>\n```",
    "backticks": "`` ` @octocat ` ``",
    "a command": "$(touch /tmp/x) `touch /tmp/x`",
    "HTML": "<img src=x onerror=alert(1)><script>x</script><!-- ",
    "a link": "[click](https://example.com) https://example.com www.example.com",
    "an image": "![x](https://example.com/x.png)",
    "a mention": "@octocat @github/team fixes #1 GH-1",
    "a terminal escape": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "the other direction": "abc\u202edef\u2066\u200b",
    "the end of a cell": "a | b \\| c \\\\| d \\",
    "half a character": "\ud800",
    "a megabyte": "x" * 1_000_000,
    "a megabyte of lines": "\n" * 1_000_000,
    "spaces": "   ",
}


def report_with(text: str) -> Report:
    """A report in which every string is this one."""
    finding = Finding(where=text, what=text, fix=text)
    image = ImageVersion(name=text, digest=text, vllm=text)
    memory = Memory(fits="no", reason=text, numbers={text: 1.0})
    stack = StackChange(
        name=text,
        status="renamed",
        was=text,
        changes=[ConfigChange(key=text, old=text, new=text, about=text)],
        image_before=image,
        image_after=image,
        memory_before=memory,
        memory_after=memory.model_copy(update={"numbers": {}}),
        downtime=Downtime(container="replaced", seconds=3.0, source=text),
        new_warnings=[finding],
        new_refusals=[finding],
        exceptions=[PolicyException(rule=text, reason=text)],
        unknowns=[text],
        steps=[Step(operation=text, type=text, name=text)],
    )
    return Report(base=text, head=text, stacks=[stack])


def outside_of_code(rendered: str) -> str:
    """What a reader of Markdown does not take as code."""
    return re.sub(r"`[^`\n]*`", "", rendered)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_string_changes_nothing_outside_of_code_spans(text: str) -> None:
    rendered, plain = markdown(report_with(text)), markdown(report_with("plain"))
    assert outside_of_code(rendered).replace("(empty)", "") == outside_of_code(plain)
    assert all(line.isprintable() for line in rendered.splitlines())
    assert len(rendered) < 40_000


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_any_string_changes_nothing_outside_of_code_spans(text: str) -> None:
    rendered = outside_of_code(markdown(report_with(f"x{text}")))
    assert rendered == outside_of_code(markdown(report_with("plain")))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_row_of_a_table_keeps_its_cells(text: str) -> None:
    for line in markdown(report_with(text)).splitlines():
        if line.startswith("|"):
            # GitHub takes any bar for the end of a cell, in code too.
            assert line.count("|") in (3, 4, 5), line


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_report_of_hostile_strings_reads_back_as_it_is(text: str, tmp_path: Path) -> None:
    report = report_with(text)
    file = tmp_path / "report.json"
    file.write_text(report.json_text())
    assert read_report(file) == report
    assert all(line.isprintable() for line in report.json_text().splitlines())


def test_a_secret_is_masked_in_json_and_in_markdown() -> None:
    report = report_with("--api-key sk-canary0123456789 HF_TOKEN=hf_Canary0123456789abcd")
    for shown in (report.json_text(), markdown(report)):
        assert "anary" not in shown


def test_the_comment_is_cut_by_stack_with_the_summary_first() -> None:
    entries = [ConfigChange(key=f"key{at}", old="é" * 300, new="x" * 300) for at in range(20)]
    stacks = [StackChange(name=f"stack{at}", status="changed", changes=entries) for at in range(50)]
    rendered = markdown(Report(base="main", head="working tree", stacks=stacks))
    assert len(rendered.encode()) <= MOST_BYTES
    assert all(f"| `stack{at}` |" in rendered for at in range(50)), "all are in the summary"
    whole = rendered.count("#### ")
    assert 0 < whole < 50
    assert rendered.count("| `key19` |") == whole, "a stack is shown whole or not at all"
    assert f"{50 - whole} stacks left out here" in rendered


def test_even_the_summary_keeps_to_the_limit() -> None:
    memory = Memory(fits="unknown")
    stacks = [
        StackChange(name=f"{at}{'é' * 200}", was="é" * 200, status="renamed", memory_after=memory)
        for at in range(200)
    ]
    rendered = markdown(Report(base="é" * 200, head="é" * 200, stacks=stacks))
    assert len(rendered.encode()) <= MOST_BYTES
    assert "200 stacks left out here" in rendered


def test_no_change_is_one_line() -> None:
    report = Report(base="main", head="working tree", stacks=[])
    assert markdown(report) == "No stack changes from `main` to `working tree`.\n"


ENDLESS = {"container": "replaced", "seconds": 1e99}

WRONG = {
    "not JSON": "{",
    "a list": "[]",
    "a key that no report has": {"comment": "hf_Canary"},
    "another schema": {"schema": 2},
    "a list as text": {"stacks": [{"name": "a", "status": "new", "unknowns": "x"}]},
    "a status that there is not": {"stacks": [{"name": "a", "status": "hf_Canary"}]},
    "an endless number": {"stacks": [{"name": "a", "status": "new", "downtime": ENDLESS}]},
    "too many stacks": {"stacks": [{"name": "a", "status": "new"}] * 201},
    "no stacks": {"stacks": None},
    "deep nesting": "[" * 100_000,
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_what_is_no_report_is_refused_without_showing_it(
    content: str | bytes | dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    if isinstance(content, dict):
        content = json.dumps({"schema": 1, "base": "a", "head": "b", "stacks": [], **content})
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ChangesError) as refused:
        read_report(file)
    assert "Canary" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_file_that_is_too_large_or_no_file_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    large.write_bytes(b" " * 20_000_001)
    link = tmp_path / "link.json"
    link.symlink_to("/etc/passwd")
    for file in (large, link, tmp_path, tmp_path / "missing.json"):
        with pytest.raises(ChangesError):
            read_report(file)

"""A log is no trusted input: a hostile line must not keep a pattern at work for minutes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.recorded_logs import BANNER
from vllm_spark.diagnosis.error_log import ErrorLog
from vllm_spark.diagnosis.failures import CATALOGUE
from vllm_spark.diagnosis.failures.needles import codes, parser
from vllm_spark.diagnosis.failures.rule import Rule
from vllm_spark.diagnosis.log_lines import LONGEST_TEXT, LogLine, shortened
from vllm_spark.diagnosis.verdict import diagnose

LONGEST = LONGEST_TEXT + len(" … ")
RUNS = ["9", " ", "x", "'", '"', "[", "]", "(", "{", "-", "a.", "9,"]
Items = list[tuple[Any, Any]]


def many(code: Any, value: Any) -> bool:
    return code in (codes.MAX_REPEAT, codes.MIN_REPEAT) and value[1] is codes.MAXREPEAT


def inside(code: Any, value: Any) -> list[Items]:
    """The sequences that an item of a parsed pattern holds."""
    if code is codes.SUBPATTERN:
        return [list(value[-1])]
    if code is codes.BRANCH:
        return [list(branch) for branch in value[1]]
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        return [list(value[2])]
    return [list(value[1])] if code in (codes.ASSERT, codes.ASSERT_NOT) else []


def has_many(items: Items) -> bool:
    return any(many(*item) or any(map(has_many, inside(*item))) for item in items)


def repeats_a_repeat(items: Items) -> bool:
    """`(a+)+`: twice the work for each further character."""
    return any(
        (many(*item) and any(map(has_many, inside(*item))))
        or any(map(repeats_a_repeat, inside(*item)))
        for item in items
    )


def begins_without_bound(items: Items) -> bool:
    """`\\d+x`: in a run of digits the search begins at each one, and reads to its end."""
    for code, value in items:
        if many(code, value) or any(map(begins_without_bound, inside(code, value))):
            return True
        if code is codes.AT and value in (codes.AT_BEGINNING, codes.AT_BEGINNING_STRING):
            return False
        optional = code in (codes.MAX_REPEAT, codes.MIN_REPEAT) and value[0] == 0
        if not optional and code is not codes.AT:
            return False
    return False


def patterns_of(rule: Rule) -> list[str]:
    spaceless = [pattern.pattern for pattern in rule.compiled_spaceless]
    return [*rule.patterns, *spaceless, *filter(None, (rule.frame, rule.unless, rule.detail))]


def test_no_pattern_of_the_catalogue_repeats_what_repeats_or_begins_without_a_bound() -> None:
    for rule in CATALOGUE:
        for pattern in patterns_of(rule):
            parsed = list(parser.parse(pattern))
            assert not repeats_a_repeat(parsed), (rule.id, pattern)
            assert not begins_without_bound(parsed), (rule.id, pattern)


@pytest.mark.parametrize("pattern", [r"(?:\w+ ?)+!", r"x(?:y(?:\d+)*)*z"])
def test_a_repeated_repeat_is_seen(pattern: str) -> None:
    assert repeats_a_repeat(list(parser.parse(pattern)))


@pytest.mark.parametrize("pattern", [r"\d+ GiB", r"\b(?P<name>\w+): no", r"-?(?:\.|\s*)x"])
def test_a_begin_without_a_bound_is_seen(pattern: str) -> None:
    assert begins_without_bound(list(parser.parse(pattern)))


@pytest.mark.parametrize("run", RUNS)
def test_an_over_long_line_is_cut_before_any_reader_sees_it(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    read = ErrorLog.read

    def spy(log: ErrorLog, line: LogLine) -> None:
        seen.append(max(len(line.text), len(line.raw)))
        read(log, line)

    monkeypatch.setattr(ErrorLog, "read", spy)
    diagnose([BANNER, run * 50_000, f"ValueError: {run * 50_000} GiB"])
    assert LONGEST_TEXT < max(seen) <= LONGEST


@pytest.mark.parametrize("run", ["9", "x", "--key", "[", '"'])
def test_an_over_long_line_without_spaces_is_cut_before_the_catalogue_sees_it(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    search = Rule.search_spaceless

    def spy(rule: Rule, text: str) -> Any:
        seen.append(len(text))
        return search(rule, text)

    monkeypatch.setattr(Rule, "search_spaceless", spy)
    diagnose([f"Traceback(mostrecentcalllast){run * 50_000}"])
    assert 0 < max(seen) <= LONGEST


def test_a_cut_line_keeps_both_its_ends() -> None:
    line = shortened("BEGIN" + "x" * 50_000 + "END")
    assert line.startswith("BEGINx") and line.endswith("xEND")
    assert len(line) == LONGEST

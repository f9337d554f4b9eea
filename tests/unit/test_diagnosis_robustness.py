"""Logs in other forms, cut off, garbled, or with secrets in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recorded_logs import (
    BANNER,
    FAILED,
    ROOTS,
    TEXTS,
    engine_dies_of,
    lines_of,
)
from vllm_spark.diagnosis.verdict import Diagnosis, diagnose

_PIDS = re.compile(r"pid=\d+")
_CLOCK = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d")
_ORIGIN_LINE = re.compile(r"(\.py:)\d+\]")
_FRAME_LINE = re.compile(r"line \d+")
SAVED_WITH = {
    "compose": "vllm-qwen3-1  | ",
    "compose with clock": "vllm-1  | 2026-11-23T20:42:24.123456789Z ",
    "swarm": "vllm_llm.1.x7k2j@spark    | ",
    "docker clock": "2026-11-23T20:42:24.123456789Z ",
    "kubernetes": "2026-11-23T20:42:24.123456789Z stderr F ",
    "kubectl": "[pod/vllm-7d9f-abcde/vllm] ",
    "journal": "Nov 23 20:42:24 spark vllm[8727]: ",
    "journal, iso": "2026-11-23T20:42:24.123456+0200 spark docker[8727]: ",
    "clock": "2026-11-23 20:42:24.123 ",
}
_TAG = re.compile(r"^\(EngineCore pid=(\d+)\) ?")


def _in_form(lines: list[str], form: str, number: int, model: str) -> list[str]:
    """The same log as another version, process or tool would have written it."""
    changed = []
    for line in lines:
        line = _PIDS.sub(f"pid={number}", line)
        line = _CLOCK.sub("01-31 23:59:58", line)
        line = _ORIGIN_LINE.sub(rf"\g<1>{number}]", line)
        line = _FRAME_LINE.sub(f"line {number}", line)
        line = line.replace("Qwen3-30B-A3B-Instruct-2507-FP8", model).replace("tiny", model)
        if form == "engine_0":
            line = _TAG.sub(rf"(EngineCore_0 pid={number}) ", line)
        elif form == "data parallel":
            line = _TAG.sub(rf"(EngineCore_DP3 pid={number}) ", line)
        elif form == "no process":
            line = re.sub(r"^\(\w+ pid=\d+\) ?", "", line)
        elif form in SAVED_WITH:
            line = SAVED_WITH[form] + line
        elif form == "colour":
            line = re.sub(r"^(\(\w+ pid=\d+\))", "\x1b[1;36m\\1\x1b[0;0m", line)
        elif form == "carriage return":
            line += "\r"
        changed.append(line)
    return changed


@settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(FAILED)),
    form=st.sampled_from(
        ["", "engine_0", "data parallel", "no process", "colour", "carriage return", *SAVED_WITH]
    ),
    number=st.integers(1, 4_000_000),
    model=st.from_regex(r"[A-Za-z][A-Za-z0-9.-]{0,30}", fullmatch=True),
)  # fmt: skip
def test_the_rule_holds_for_other_values_and_other_forms(
    name: str, form: str, number: int, model: str
) -> None:
    found = diagnose(_in_form(lines_of(name), form, number, model))
    assert found.rule == FAILED[name]


@pytest.mark.parametrize("before", [*SAVED_WITH.values(), "> ", "    "])
def test_whatever_saved_the_log_a_server_that_serves_is_healthy(before: str) -> None:
    found = diagnose(before + line for line in lines_of("healthy_serving"))
    assert found.verdict == "healthy"


@pytest.mark.parametrize(
    "before", ["{n:6d}\t", "{n}:", "[llm]   | ", "vllm-7d9f vllm ", "Nov {n} 06:13:29 ", "\t", "> "]
)
@pytest.mark.parametrize(
    "name", ["config_not_json", "tool_choice_without_parser", "shard_truncated"]
)
def test_a_prefix_that_nobody_has_heard_of_is_learnt_from_the_log(name: str, before: str) -> None:
    lines = lines_of(name)
    found = diagnose(before.format(n=n) + line for n, line in enumerate(lines, 1))
    assert found.rule == FAILED[name]
    assert found.cause == diagnose(lines).cause


def test_an_indented_traceback_in_a_log_that_is_not_indented_is_no_margin() -> None:
    quoted = [
        "    Traceback (most recent call last):",
        '      File "/app/remote.py", line 3, in call',
        "    KeyError: 'quoted'",
    ]
    died = diagnose([BANNER, *quoted, *lines_of("tool_choice_without_parser")])
    assert died.rule == "tool_choice_without_parser"


def test_what_the_terminal_echoed_is_no_part_of_the_line() -> None:
    found = diagnose(
        [
            BANNER,
            "^C(APIServer pid=1) Traceback (most recent call last):",
            '(APIServer pid=1)   File "/usr/local/bin/vllm", line 10, in <module>',
            "(APIServer pid=1)     sys.exit(main())",
            "(APIServer pid=1) KeyboardInterrupt: terminated",
        ]
    )
    assert found.cause.startswith("the start was stopped from outside")


def test_a_paste_that_lost_its_indentation_is_understood() -> None:
    lines = [re.sub(r"(\] |\) )\s+", r"\1", line) for line in lines_of("weights_missing")]
    assert diagnose(lines).rule == "weights_missing"
    unknown = diagnose([line.replace("Cannot find any", "Can not find") for line in lines])
    assert "Can not find model weights" in unknown.cause


def test_a_tag_in_front_of_vllms_own_is_no_part_of_the_message() -> None:
    lines = [f"(pytest, pid=7) {line}" for line in lines_of("hub_offline")]
    assert diagnose(lines).rule == "hub_offline"
    died = [
        f"(pytest, pid=7) (APIServer pid=1) {line}"
        for line in (
            "Traceback (most recent call last):",
            '  File "/usr/local/bin/vllm", line 10, in <module>',
            "    sys.exit(main())",
            "FrobnicationError: no frobs",
        )
    ]
    assert diagnose(died).cause.endswith(": FrobnicationError: no frobs")


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(FAILED)), data=st.data())
def test_a_log_cut_off_anywhere_never_gets_another_cause_than_the_whole(
    name: str, data: st.DataObject
) -> None:
    lines = lines_of(name)
    part = diagnose(lines[: data.draw(st.integers(0, len(lines)))])
    assert part.rule not in ROOTS - {FAILED[name]}


@given(st.lists(st.text(max_size=300), max_size=20))
def test_garbage_never_raises_and_is_never_healthy(lines: list[str]) -> None:
    assert diagnose(lines).verdict != "healthy"


@settings(max_examples=30)
@given(name=st.sampled_from(sorted(FAILED)), seed=st.binary(max_size=400), at=st.integers(0, 60))
def test_garbage_in_the_middle_of_a_log_never_raises(name: str, seed: bytes, at: int) -> None:
    lines = lines_of(name)
    lines.insert(min(at, len(lines)), seed.decode("utf-8", errors="replace"))
    assert isinstance(diagnose(lines), Diagnosis)


@pytest.mark.parametrize("number", ["1.2.3", ".", "0", "0.0", "9" * 5000, "-1"])
def test_garbled_numbers_never_raise(number: str) -> None:
    for text in TEXTS:
        diagnose(re.sub(r"\d+(?:\.\d+)?", number, text["log"]).splitlines())
        diagnose(re.sub(r"\((\d+(?:\.\d+)?)", f"({number}", text["log"]).splitlines())


def test_a_line_of_ten_megabytes_is_survived() -> None:
    found = diagnose([BANNER, "x" * 10_000_000, *lines_of("kv_cache_none")])
    assert found.rule == "kv_cache_none"
    assert all(len(line) < 1000 for line in found.evidence)


SECRET = "sw0rdfish-Secret-42"


@pytest.mark.parametrize(
    "line",
    [
        f"vllm: error: unrecognized arguments: --api-kez {SECRET}",
        f"vllm: error: unrecognized arguments: --max-len 4 --api-key {SECRET} more-{SECRET}",
        f"vllm: error: unrecognized arguments: --hf-token={SECRET}",
        f"vllm: error: argument --api-key: invalid choice: '{SECRET}'",
        f"ValueError: bad args: {{'port': 8000, 'api_key': ['{SECRET}', 'x'], 'model': 'm'}}",
        f"ValueError: Namespace(port=8000, api_key='{SECRET}', model='m')",
        f"ValueError: ['vllm', 'serve', '--api-key', '{SECRET}', '--port', '8000']",
        f"ValueError: environment VLLM_API_KEY={SECRET} HF_TOKEN=x",
        f"ValueError: HF_TOKEN: {SECRET}",
        f"ValueError: header Authorization: Bearer {SECRET}",
        "ValueError: token hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345 is bad",
    ],
)
def test_no_secret_is_ever_shown(line: str) -> None:
    found = diagnose(
        [
            BANNER,
            "Traceback (most recent call last):",
            '  File "/usr/local/bin/vllm", line 10, in <module>',
            "    sys.exit(main())",
            line,
        ]
    )
    shown = " ".join([found.cause, found.fix, *found.evidence])
    assert "***" in shown
    assert SECRET not in shown
    assert "hf_AbCd" not in shown


@pytest.mark.parametrize(
    "line",
    [
        "vllm: error: unrecognized arguments: --max-num-batched-token 8192",
        "vllm: error: argument --tokenizer-mode: invalid choice: 'quick'",
        "ValueError: 'hf_transfer' package is not available in your environment, hf_overrides",
        "ValueError: --api-server-count 4 cannot be used with --headless",
    ],
)
def test_what_only_looks_like_a_secret_stays_readable(line: str) -> None:
    found = diagnose([line] if line.startswith("vllm") else engine_dies_of(line))
    assert line in found.evidence[0]


def test_evidence_cannot_move_the_terminals_cursor() -> None:
    found = diagnose(engine_dies_of("FrobnicationError: \x07\x08\x1b]0;title\x07 end"))
    assert all(line.isprintable() for line in (found.cause, *found.evidence))

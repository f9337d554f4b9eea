"""The verdict on a whole log: healthy, failed or unknown."""

from __future__ import annotations

import pytest

from tests.recorded_logs import (
    BANNER,
    ENGINE_DIES,
    HEALTHY,
    READY,
    engine_dies_of,
    lines_of,
)
from vllm_spark.diagnosis.failures import EXIT_CODES
from vllm_spark.diagnosis.verdict import diagnose


@pytest.mark.parametrize("name", HEALTHY)
def test_a_server_that_served_is_healthy(name: str) -> None:
    found = diagnose(lines_of(name))
    assert (found.verdict, found.fix) == ("healthy", "")


@pytest.mark.parametrize("name", ["healthy_stopped", "cpu_healthy_stopped"])
def test_a_healthy_server_that_was_stopped_says_so(name: str) -> None:
    found = diagnose(lines_of(name))
    assert "until it was stopped" in found.cause
    assert "shutdown triggered" in found.evidence[0]


def test_a_server_killed_because_its_stop_took_too_long_says_so() -> None:
    found = diagnose(lines_of("healthy_stopped"), exit_code=137)
    assert found.verdict == "healthy"
    assert "stop timeout" in found.cause


def test_a_start_that_is_under_way_is_unknown_and_names_its_phase() -> None:
    found = diagnose(lines_of("unfinished_compiling"))
    assert found.verdict == "unknown"
    assert "compiling" in found.cause


def test_a_dead_engine_with_exit_code_0_is_a_failure() -> None:
    lines = lines_of("engine_killed_while_serving")
    assert lines[-1].startswith("# exit 0")
    found = diagnose(lines)
    assert found.verdict == "failed"
    assert found.cause.startswith("it served, then died")


def test_exit_code_0_during_the_start_is_a_failure() -> None:
    found = diagnose(lines_of("unfinished_compiling"), exit_code=0)
    assert found.verdict == "failed"
    assert "exit code 0" in found.cause and "compiling" in found.cause


def test_exit_code_0_after_serving_without_a_word_is_unknown() -> None:
    assert diagnose([BANNER, READY], exit_code=0).verdict == "unknown"


@pytest.mark.parametrize("code", [137, -9])
def test_a_kill_without_a_line_is_taken_for_want_of_memory(code: int) -> None:
    lines = [*lines_of("unfinished_compiling")[:-1], f"# exit {code} after 50 s"]
    found = diagnose(lines)
    assert found.verdict == "failed"
    assert "memory" in found.cause and "compiling" in found.cause


def test_oom_killed_is_told_with_certainty() -> None:
    found = diagnose(lines_of("unfinished_compiling"), exit_code=137, oom_killed=True)
    assert found.cause.startswith("killed for memory")


def test_a_cause_in_the_log_is_not_hidden_by_the_kill_that_followed() -> None:
    found = diagnose(lines_of("kv_cache_none"), exit_code=137)
    assert found.rule == "kv_cache_none"


@pytest.mark.parametrize("code", EXIT_CODES)
def test_every_known_exit_code_is_explained(code: int) -> None:
    found = diagnose([BANNER], exit_code=code)
    assert (found.verdict, found.rule) == ("failed", "")
    assert found.cause.startswith(EXIT_CODES[code][0])


def test_a_start_that_somebody_stopped_is_no_failure_of_vllm() -> None:
    found = diagnose(lines_of("cpu_stopped_while_starting"))
    assert found.verdict == "failed"
    assert found.cause.startswith("the start was stopped from outside")


def test_a_failure_without_a_rule_is_quoted_and_called_unknown() -> None:
    found = diagnose(
        [*engine_dies_of("FrobnicationError: no frobs in the flux"), "# exit 1 after 20.0 s"]
    )
    assert (found.verdict, found.rule) == ("failed", "")
    assert "not in the catalogue" in found.cause
    assert "FrobnicationError: no frobs in the flux" in found.cause
    assert "FrobnicationError" in found.evidence[0]


def test_an_end_that_is_announced_without_a_reason_is_a_failure() -> None:
    found = diagnose([BANNER, *ENGINE_DIES])
    assert (found.verdict, found.rule) == ("failed", "engine_died")


def test_an_error_that_may_not_have_been_the_end_is_unknown() -> None:
    found = diagnose(
        [
            BANNER,
            "(APIServer pid=1) ERROR 11-01 10:00:01 [a.py:1] Traceback (most recent call last):",
            '(APIServer pid=1) ERROR 11-01 10:00:01 [a.py:1]   File "a.py", line 1, in probe',
            "(APIServer pid=1) ERROR 11-01 10:00:01 [a.py:1] FrobnicationError: no frobs",
        ]
    )
    assert found.verdict == "unknown"
    assert "FrobnicationError" in found.cause


def test_an_exit_without_any_word_shows_the_last_lines() -> None:
    found = diagnose([BANNER, "(APIServer pid=1) INFO 11-01 10:00:01 [a.py:1] hello"], exit_code=1)
    assert "unknown failure: it ended with exit code 1" in found.cause
    assert "hello" in found.evidence[-1]


@pytest.mark.parametrize(
    "log",
    [
        [],
        ["", "  "],
        ["Dear diary,", "today nothing failed."],
        [
            "Traceback (most recent call last):",
            '  File "/app/manage.py", line 22, in <module>',
            "    main()",
            "ImproperlyConfigured: The SECRET_KEY setting must not be empty.",
        ],
    ],
)
def test_what_is_no_log_of_vllm_is_unknown(log: list[str]) -> None:
    assert diagnose(log).verdict == "unknown"

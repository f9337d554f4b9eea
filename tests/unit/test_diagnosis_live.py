"""A log that is read while the server writes it."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.recorded_logs import (
    FAILED,
    HEALTHY,
    lines_of,
)
from vllm_spark.diagnosis.verdict import LogDiagnosis


@pytest.mark.parametrize("name", FAILED)
def test_a_lost_start_is_known_while_the_process_may_still_live(name: str) -> None:
    log = LogDiagnosis()
    for line in lines_of(name):
        if not line.startswith("# exit"):
            log.feed(line)
    assert log.final


@pytest.mark.parametrize("name", ["kv_cache_none", "shard_truncated", "gpu_memory_taken"])
def test_the_loss_is_known_at_the_engines_exception_before_the_api_server_notices(
    name: str,
) -> None:
    log = LogDiagnosis()
    for line in lines_of(name):
        log.feed(line)
        if log.final:
            break
    assert line.startswith("(EngineCore ") and "Error: " in line
    assert log.diagnosis().rule == FAILED[name]


def test_a_dead_engine_is_known_at_the_first_line_that_says_so() -> None:
    log = LogDiagnosis()
    for line in lines_of("engine_killed_while_serving"):
        log.feed(line)
        if log.final:
            break
    assert "engine core exited unexpectedly" in line


@pytest.mark.parametrize("name", [*HEALTHY, "unfinished_compiling"])
def test_a_good_start_is_never_called_lost(name: str) -> None:
    log = LogDiagnosis()
    for line in lines_of(name):
        log.feed(line)
        assert not log.final


def test_memory_stays_bounded_while_a_dead_engine_fills_the_log() -> None:
    log = LogDiagnosis()
    lines = lines_of("engine_killed_while_serving")
    sizes: list[int] = []
    tracemalloc.start()
    for _ in range(4):
        for _ in range(20):
            for line in lines:
                log.feed(line.replace("pid=9", f"pid={len(sizes)}"))
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[1] < 200_000

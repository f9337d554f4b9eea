"""The failure catalogue: each rule on real logs, with the values that cause and fix name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.recorded_logs import (
    DATA,
    FAILED,
    TEXTS,
    engine_dies_of,
    lines_of,
)
from vllm_spark.diagnosis.failures import CATALOGUE
from vllm_spark.diagnosis.verdict import diagnose


@pytest.mark.parametrize(("name", "rule"), FAILED.items())
def test_a_real_failed_start_is_explained_by_its_rule(name: str, rule: str) -> None:
    found = diagnose(lines_of(name))
    assert (found.verdict, found.rule) == ("failed", rule)
    assert found.cause and found.fix and found.evidence
    if rule != "process_killed":  # there the line that points elsewhere holds the signal
        assert "See root cause above" not in " ".join(found.evidence)


@pytest.mark.parametrize(("name", "rule"), FAILED.items())
def test_a_saved_log_needs_neither_its_header_nor_its_footer(name: str, rule: str) -> None:
    lines = [line for line in lines_of(name) if not line.startswith("# ")]
    assert diagnose(lines).rule == rule


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text['rule']}: {text['from']}")
def test_a_known_text_is_explained_by_its_rule(text: dict[str, Any]) -> None:
    found = diagnose(text["log"].splitlines())
    assert (found.verdict, found.rule) == ("failed", text["rule"])
    assert text.get("cause", "") in found.cause
    assert text.get("fix", "") in found.fix


def test_every_rule_has_a_text_in_which_it_was_seen() -> None:
    files = ("failure_texts.yaml", "cases/logs.yaml", "cases/public.yaml")
    seen = [text["rule"] for name in files for text in yaml.safe_load((DATA / name).read_text())]
    assert {rule.id for rule in CATALOGUE} == set(filter(None, seen))


def test_every_rule_names_its_source_and_what_to_do() -> None:
    for rule in CATALOGUE:
        assert rule.cause and rule.fix and rule.source, rule.id


@pytest.mark.parametrize(
    ("name", "cause", "fix"),
    [
        ("length_beyond_positions", "500000 is beyond the model's 262144", "at most 262144"),
        ("gpu_memory_taken", "68.68 of 139.8 GiB are free", "at most 0.49"),
        ("kv_cache_none", "3.32 GiB short after 29.13 GiB of weights", "above 0.20"),
        ("gpu_out_of_memory", "2.71 GiB more, 317.12 MiB free", "kv-cache-memory-bytes (130G)"),
        ("address_space_limit", "594.00 MiB while 125.57 GiB", "ulimit -v"),
        ("port_taken", "port 8099", "endpoint.port"),
        ("flag_unknown_misspelt", "--max-model-length2", "write max-model-len"),
        ("flag_unknown_removed", "--swap-space 4", "vLLM 0.18.0 removed it"),
        ("flag_unknown_removed", "--disable-log-requests", "disable-log-requests: "),
        ("flag_value", "EOF while parsing an object", "--compilation-config"),
        ("model_path_missing", "/models/does-not-exist does not exist", "mount"),
        ("quantization_config_missing", "w2_weight_scale_inv", "config.json"),
        ("architecture_unsupported", "vLLM 0.26.0 cannot run the architecture 'Foo", "newer image"),
        ("hub_unreachable", "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8 is not in the cache", "network"),
        ("world_size_above_gpus", "ask for 2 GPUs, this node has 1", "tensor-parallel-size"),
    ],
)
def test_cause_and_fix_name_the_values_of_the_log(name: str, cause: str, fix: str) -> None:
    found = diagnose(lines_of(name))
    assert cause in found.cause
    assert fix in found.fix


@given(free=st.floats(1, 100), total=st.floats(110, 140), util=st.floats(0.85, 0.99))
def test_the_suggested_utilization_always_fits(free: float, total: float, util: float) -> None:
    found = diagnose(
        engine_dies_of(
            f"ValueError: Free memory on device cuda:0 ({free:.2f}/{total:.2f} GiB) on startup is"
            f" less than desired GPU memory utilization ({util:.2f}, {util * total:.2f} GiB)."
        )
    )
    suggested = float(found.fix.rpartition(" ")[2])
    assert suggested * float(f"{total:.2f}") <= float(f"{free:.2f}") + 1e-9


@given(asked=st.integers(64, 10**6), need=st.floats(1.1, 400), share=st.floats(0.01, 0.99))
def test_the_suggested_length_is_shorter_than_the_refused_one(
    asked: int, need: float, share: float
) -> None:
    found = diagnose(
        engine_dies_of(
            f"ValueError: To serve at least one request with the model's max seq len ({asked}),"
            f" ({need:.2f} GiB KV cache is needed, which is larger than the available KV cache"
            f" memory ({need * share:.2f} GiB)."
        )
    )
    suggested = int(re.findall(r"at most (\d+)", found.fix)[0])
    assert suggested < asked
    assert suggested % 16 == 0


@given(tried=st.floats(0.1, 60), free=st.floats(0.05, 120))
def test_out_of_memory_with_much_free_is_a_limit_on_the_process(tried: float, free: float) -> None:
    found = diagnose(
        engine_dies_of(
            f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {tried:.2f} GiB. GPU 0"
            f" has a total capacity of 121.69 GiB of which {free:.2f} GiB is free."
        )
    )
    tried, free = round(tried, 2), round(free, 2)
    limited = free > 4 * tried and free > tried + 1
    assert found.rule == ("address_space_limit" if limited else "gpu_out_of_memory")

"""Plans against servers that others ran on a GB10 and published: weights, KV cache, verdict.

Level of evidence: GB10 by others. Where a log has no pool, the tokens tell it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.planner_data import DATA, LOADED, shape
from vllm_spark.cli.fit import flags_of
from vllm_spark.images import Version
from vllm_spark.memory.limits import Machine
from vllm_spark.memory.misfits import fits
from vllm_spark.memory.plan import MemoryPlan, make_plan

QWEN_30B = "Qwen--Qwen3-30B-A3B"
CODER = "llm-compressor--qwen3-coder-30b-a3b-nvfp4"
LLAMA_NVFP4 = "nvidia--Llama-3.3-70B-Instruct-NVFP4"
SHARE = "--gpu-memory-utilization"


def planned(name: str, engine: str, version: str, host: Machine | None = None) -> MemoryPlan:
    plan = make_plan(shape(name), flags_of(engine), host or Machine(), Version.parse(version))
    assert isinstance(plan, MemoryPlan), plan.reason
    return plan


WEIGHTS = json.loads((DATA / "weights.json").read_text())


@pytest.mark.parametrize("case", WEIGHTS, ids=[case["config"] for case in WEIGHTS])
def test_weights_are_within_13_per_mille_of_what_vllm_loaded(case: dict[str, Any]) -> None:
    model, loaded = shape(case["config"]), LOADED[case["parts"]]
    weights = model.weight_bytes(model.quantization, 2, 1, loaded) / 2**30
    assert weights == pytest.approx(case["gib"], rel=0.013)


def test_deepseek_v4_takes_as_much_of_each_of_two_gpus_as_one_logged() -> None:
    """74.08 GiB, most of it experts in MXFP4; a latent's matrices are whole on each GPU."""
    model = shape("deepseek-ai--DeepSeek-V4-Flash")
    weights = model.weight_bytes(model.quantization, 2, 2) / 2**30
    assert weights == pytest.approx(74.08, rel=0.013)


@pytest.mark.parametrize(
    ("name", "engine", "version", "host", "pool_gib"),
    [
        ("Qwen--Qwen3-30B-A3B-FP8", f"--max-model-len 32768 {SHARE} 0.30 --kv-cache-dtype fp8",
         "0.13", None, 4.04),
        ("NousResearch--Hermes-4-14B-FP8",
         f"--max-model-len 32768 {SHARE} 0.55 --max-num-batched-tokens 4096", "0.30", None, 48.73),
        ("Qwen--Qwen3-30B-A3B-Thinking-2507-FP8",
         f"--max-model-len 32768 {SHARE} 0.55 --max-num-batched-tokens 4096", "0.30", None, 36.07),
        (LLAMA_NVFP4, f"--max-model-len 8192 {SHARE} 0.60", "0.26", None, 30.48),
        (CODER, f"--max-model-len 131072 {SHARE} 0.20 --max-num-seqs 128 --kv-cache-dtype fp8",
         "0.26", None, 4.56),
        ("Qwen--Qwen3.6-35B-A3B", f"--max-model-len 131072 {SHARE} 0.95 "
         "--no-enable-prefix-caching --language-model-only", "0.19.2", None, 47.55),
        ("google--gemma-4-26B-A4B",
         f"--max-model-len 8192 {SHARE} 0.80 --max-num-batched-tokens 4096", "0.20", None, 40.61),
        ("Qwen--Qwen3.5-27B", f"--max-model-len 786432 {SHARE} 0.92 --no-enable-prefix-caching",
         "0.27.1", Machine(119.63), 50.29),
    ],
)  # fmt: skip
def test_the_pool_lies_between_the_bounds_or_within_3_percent_of_them(
    name: str, engine: str, version: str, host: Machine | None, pool_gib: float
) -> None:
    plan = planned(name, engine, version, host)
    assert 0.97 * plan.pool_gib <= pool_gib <= 1.03 * plan.at_best.pool_gib


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("Qwen--Qwen3.6-27B-FP8", 445_781),
        ("nvidia--NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4", 7_778_304),
        ("openai--gpt-oss-20b", 1_968_672),
        ("unsloth--GLM-4.7-Flash-FP8-Dynamic", 661_808),
    ],
)
def test_the_tokens_of_one_machine_at_055_lie_between_the_bounds(name: str, tokens: int) -> None:
    plan = planned(name, f"--max-model-len 32768 {SHARE} 0.55", "0.30")
    assert plan.kv_tokens <= tokens <= plan.at_best.kv_tokens


@pytest.mark.parametrize(
    ("name", "engine", "version"),
    [
        (QWEN_30B, f"--max-model-len 16384 {SHARE} 0.49 --enforce-eager "
         "--no-enable-prefix-caching", "0.19.2"),
        (CODER, f"--max-model-len 131072 {SHARE} 0.22 --max-num-seqs 128 --kv-cache-dtype fp8",
         "0.26"),
        (LLAMA_NVFP4, f"--max-model-len 16384 {SHARE} 0.90", "0.15.1"),
        ("Qwen--Qwen3.6-35B-A3B", f"--max-model-len 131072 {SHARE} 0.95", "0.19.2"),
        ("Qwen--Qwen3-8B", "--max-model-len 32768", "0.26"),
    ],
)  # fmt: skip
def test_what_ran_is_never_refused(name: str, engine: str, version: str) -> None:
    assert fits(planned(name, engine, version)) != "no"


@pytest.mark.parametrize(
    ("name", "engine", "version"),
    [
        ("neuralmagic--Qwen2.5-14B-Instruct-FP8-dynamic",
         f"--max-model-len 32768 {SHARE} 0.15 --kv-cache-dtype fp8", "0.13"),
        (CODER, f"--max-model-len 131072 {SHARE} 0.20 --max-num-seqs 128 --kv-cache-dtype fp8",
         "0.26"),
    ],
)  # fmt: skip
def test_what_failed_is_never_promised(name: str, engine: str, version: str) -> None:
    assert fits(planned(name, engine, version)) != "yes"


def test_a_gpu_of_its_own_as_we_measured_it_on_an_h100() -> None:
    """vLLM 0.26.0 in Docker, 79.18 GiB: 36.02 GiB and 393,424 tokens."""
    engine = f"--max-model-len 32768 {SHARE} 0.85 --max-num-batched-tokens 16384 --max-num-seqs 64"
    host = Machine(79.18, unified=False)
    plan = planned("Qwen--Qwen3-30B-A3B-Thinking-2507-FP8", engine, "0.26", host)
    assert plan.pool_gib == pytest.approx(36.02, rel=0.005)
    assert plan.kv_tokens == pytest.approx(393_424, rel=0.005)
    assert plan.kv_tokens == plan.at_best.kv_tokens, "one bound: no memory is shared"

"""The plan against what real vLLM reported, and the rules that any plan obeys.

Measured: vLLM 0.26.0 on one NVIDIA H200 (139.80 GiB). Spark: what its numbers leave of 121.69 GiB
after weights and the 5.5 GiB that Sparks show besides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner_data import shape
from vllm_spark.errors import ConfigError
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.known_models import known_shapes
from vllm_spark.memory.limits import Machine
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.problems import Unmodelled

QWEN_30B = "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"
QWEN_32B = "Qwen/Qwen3-32B-FP8"
LLAMA_70B = "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"

H200 = Machine(memory_gib=139.80)
SPARK = Machine()
GUIDE = {
    "max-model-len": 32768,
    "gpu-memory-utilization": 0.85,
    "max-num-batched-tokens": 16384,
    "max-num-seqs": 64,
}
DEFAULT_BATCH = {"max-model-len": 32768, "gpu-memory-utilization": 0.85}
LLAMA_FLAGS = {"max-model-len": 8192, "gpu-memory-utilization": 0.90}


def planned(
    model: str,
    flags: dict[str, Any],
    host: Machine = SPARK,
    version: str | None = "0.26",
    cpu_kv_cache_gib: int | None = None,
) -> MemoryPlan:
    release = Version.parse(version) if version else None
    plan = make_plan(known_shapes()[model], EngineFlags(flags), host, release, cpu_kv_cache_gib)
    assert isinstance(plan, MemoryPlan), plan
    return plan


def within_3_percent(expected: float) -> Any:
    return pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("model", "flags", "weights", "pool", "tokens"),
    [
        pytest.param(QWEN_30B, GUIDE, 29.13, 87.55, 956_240, id="the guide's flags"),
        pytest.param(
            QWEN_30B, GUIDE | {"kv-cache-dtype": "fp8"}, 29.13, 87.61, 1_913_776, id="fp8 KV cache"
        ),
        pytest.param(QWEN_30B, DEFAULT_BATCH, 29.13, 86.04, 939_824, id="vLLM's batch sizes"),
        pytest.param(
            QWEN_30B,
            GUIDE | {"gpu-memory-utilization": 0.30, "max-model-len": 262144},
            29.13,
            10.66,
            116_400,
            id="a small share",
        ),
        pytest.param(LLAMA_70B, LLAMA_FLAGS, 67.75, 55.57, 182_096, id="a dense model"),
    ],
)
def test_the_plan_is_within_3_percent_of_what_vllm_measured_on_an_h200(
    model: str, flags: dict[str, Any], weights: float, pool: float, tokens: int
) -> None:
    plan = planned(model, flags, H200)
    assert plan.weights_gib == within_3_percent(weights)
    assert plan.pool_gib == within_3_percent(pool)
    # vLLM reports how much fits at once; where not one sequence does, it names the longest length
    assert plan.kv_blocks * plan.limits.block_size == within_3_percent(tokens)


@pytest.mark.parametrize(
    ("model", "flags", "activation", "graphs"),
    [
        (QWEN_30B, GUIDE, 1.70, 0.21),
        (QWEN_30B, DEFAULT_BATCH, 2.68, 0.74),
        (LLAMA_70B, LLAMA_FLAGS, 2.27, 1.92),
    ],
)
def test_activations_and_graphs_are_within_3_percent_of_the_measured_ones(
    model: str, flags: dict[str, Any], activation: float, graphs: float
) -> None:
    taken = planned(model, flags, H200).overhead
    assert taken.activation_gib == within_3_percent(activation)
    assert taken.graphs_gib == within_3_percent(graphs)
    assert taken.non_torch_gib == pytest.approx(0.24, abs=0.02)


def test_the_weights_of_qwen3_32b_are_what_vllm_loaded() -> None:
    assert planned(QWEN_32B, GUIDE, H200).weights_gib == within_3_percent(32.07)


def test_the_length_of_the_printed_concurrency_is_vllms() -> None:
    assert planned(QWEN_30B, GUIDE, H200).full_length_sequences == within_3_percent(29.18)


def test_bytes_for_the_kv_cache_win_over_utilization_and_give_the_measured_blocks() -> None:
    plan = planned(QWEN_30B, GUIDE | {"kv-cache-memory-bytes": "130G"}, H200)
    assert plan.kv_tokens == 1_419_936


def test_a_number_of_blocks_wins_over_bytes() -> None:
    flags = GUIDE | {"kv-cache-memory-bytes": "20G", "num-gpu-blocks-override": 59765}
    assert planned(QWEN_30B, flags).kv_tokens == 956_240


def test_a_dense_model_takes_its_graphs_and_more_beyond_the_request() -> None:
    plan = planned(LLAMA_70B, LLAMA_FLAGS, H200)
    assert not plan.overhead.graphs_counted
    assert plan.overhead.beyond_request_gib == within_3_percent(130.71 - 125.82)


@pytest.mark.parametrize(
    ("version", "model", "counted"),
    [
        ("0.10.1.1", QWEN_30B, False),
        ("0.20", QWEN_30B, True),
        ("0.26", QWEN_32B, False),
        ("0.28", QWEN_32B, False),
        ("0.29", QWEN_32B, True),
        ("0.29", QWEN_30B, True),
    ],
)
def test_whether_graphs_come_off_the_kv_cache_depends_on_the_release(
    version: str, model: str, counted: bool
) -> None:
    assert planned(model, GUIDE, version=version).overhead.graphs_counted is counted


@pytest.mark.parametrize("version", [None, "0.10.1.1", "0.26", "0.33"])
@pytest.mark.parametrize(
    ("model", "flags", "pool", "tokens", "sequences"),
    [
        (QWEN_30B, GUIDE, 68.9, 753_000, 23),
        (QWEN_32B, GUIDE | {"gpu-memory-utilization": 0.90}, 72, 295_000, 9),
    ],
)
def test_the_plan_is_within_3_percent_of_what_a_spark_leaves(
    version: str | None,
    model: str,
    flags: dict[str, Any],
    pool: float,
    tokens: int,
    sequences: float,
) -> None:
    plan = planned(model, flags, SPARK, version)
    assert plan.pool_gib == within_3_percent(pool)
    assert plan.kv_tokens == within_3_percent(tokens)
    assert plan.full_length_sequences == within_3_percent(sequences)


@pytest.mark.parametrize(("model", "expected"), [(QWEN_30B, 81), (QWEN_32B, 8.3), (LLAMA_70B, 3.9)])
def test_the_roofline_is_the_bandwidth_over_the_bytes_that_a_token_reads(
    model: str, expected: float
) -> None:
    assert planned(model, GUIDE).roofline_tokens_per_second == within_3_percent(expected)


@pytest.mark.parametrize(
    ("gib", "flags", "tokens"),
    [
        (1, {"max-model-len": 2048}, 46_592),  # 364 blocks of 128 tokens of 23,040 bytes
        (2, {"max-model-len": 2048}, 93_184),
        (1, {"max-model-len": 2048, "block-size": 16}, 46_592),
        (1, {"max-model-len": 1000}, 45_500),  # since 0.20 in sequences: 364 / 8 x 1000
    ],
)
def test_the_cpu_engine_gets_the_blocks_that_its_space_holds(
    gib: int, flags: dict[str, Any], tokens: int
) -> None:
    assert planned(SMOLLM2, flags, version="0.32", cpu_kv_cache_gib=gib).kv_tokens == tokens


def test_defaults_come_from_the_model_the_device_and_the_release() -> None:
    old, new = (planned(QWEN_32B, {}, H200, version) for version in ("0.10.1", "0.33"))
    assert (old.limits.utilization, new.limits.utilization) == (0.9, 0.92)
    assert (old.limits.max_num_seqs, new.limits.max_num_seqs) == (1024, 1024)
    assert old.max_model_len == new.max_model_len == 40960


@pytest.mark.parametrize("version", ["0.13", "0.19", "0.26", "0.33"])
def test_a_gb10_gets_the_batch_of_a_small_gpu_since_it_does_not_tell_its_memory(
    version: str,
) -> None:
    limits = planned(QWEN_32B, {}, SPARK, version).limits
    assert (limits.max_num_batched_tokens, limits.max_num_seqs) == (2048, 256)


def test_a_gpu_with_memory_of_its_own_may_be_no_larger_than_a_spark() -> None:
    discrete = planned(QWEN_30B, GUIDE, Machine(79.18, unified=False))
    assert discrete.limits.max_num_batched_tokens == 16384
    assert discrete.overhead.host_gib == 0
    assert not any("unified" in note for note in discrete.notes())


def test_an_automatic_length_is_the_longest_that_the_cache_holds() -> None:
    plan, again = (
        planned(LLAMA_70B, LLAMA_FLAGS | {"max-model-len": auto}) for auto in ("auto", "Auto")
    )
    assert plan == again
    assert plan.full_length_sequences == 1
    assert plan.max_model_len == plan.kv_blocks * 16


def test_flags_may_be_spelled_with_underscores() -> None:
    dashed = planned(QWEN_30B, GUIDE)
    underscored = {flag.replace("-", "_"): value for flag, value in GUIDE.items()}
    assert planned(QWEN_30B, underscored) == dashed


def test_eager_execution_needs_no_graphs() -> None:
    assert planned(QWEN_30B, GUIDE | {"enforce-eager": True}).overhead.graphs_gib == 0


def test_a_16_bit_checkpoint_halves_when_vllm_quantises_it() -> None:
    plain = replace(planned(QWEN_32B, GUIDE).shape, quantization=None)
    whole = make_plan(plain, EngineFlags(GUIDE), H200)
    halved = make_plan(plain, EngineFlags(GUIDE | {"quantization": "fp8"}), H200)
    assert isinstance(whole, MemoryPlan)
    assert isinstance(halved, MemoryPlan)
    assert whole.weights_gib == pytest.approx(61.0, rel=0.01)
    assert halved.weights_gib == pytest.approx(32.0, rel=0.01)


def test_two_sparks_share_weights_and_cache() -> None:
    flags = LLAMA_FLAGS | {"gpu-memory-utilization": 0.80}
    alone, shared = (planned(LLAMA_70B, flags | {"tensor-parallel-size": n}) for n in (1, 2))
    assert shared.weights_gib == pytest.approx(alone.weights_gib / 2, rel=0.01)
    assert shared.kv_bytes_per_token == alone.kv_bytes_per_token // 2
    assert shared.kv_tokens > 4 * alone.kv_tokens


def test_lora_adapters_reserve_memory_by_slots_and_rank() -> None:
    plain, one, eight = (
        planned(QWEN_32B, GUIDE | flags)
        for flags in ({}, {"enable-lora": True}, {"enable-lora": True, "max-loras": 8})
    )
    assert plain.overhead.adapter_gib == 0
    assert eight.overhead.adapter_gib == pytest.approx(8 * one.overhead.adapter_gib)
    assert plain.kv_tokens > one.kv_tokens > eight.kv_tokens


@pytest.mark.parametrize(
    "flags", [{"runner": "pooling"}, {"convert": "embed"}, {"task": "embed"}, {"runner": "auto"}]
)
def test_a_model_for_embeddings_has_no_output_layer(flags: dict[str, Any]) -> None:
    embedding = shape("Qwen--Qwen3-Embedding-8B")
    plan = make_plan(embedding, EngineFlags(flags), SPARK)
    asked_to_generate = make_plan(embedding, EngineFlags({"runner": "generate"}), SPARK)
    assert isinstance(plan, MemoryPlan)
    assert isinstance(asked_to_generate, MemoryPlan)
    assert plan.weights_gib == pytest.approx(14.11, rel=0.001)
    assert asked_to_generate.weights_gib == pytest.approx(15.26, rel=0.001)


@pytest.mark.parametrize(
    "flags",
    [{"language-model-only": True}, {"limit-mm-per-prompt": {"image": 0, "video": 0}}],
)
def test_a_server_for_text_alone_loads_no_vision_tower(flags: dict[str, Any]) -> None:
    model = shape("Qwen--Qwen3.5-27B")
    whole, text = (make_plan(model, EngineFlags(given), SPARK) for given in ({}, flags))
    assert isinstance(whole, MemoryPlan)
    assert isinstance(text, MemoryPlan)
    assert whole.weights_gib - text.weights_gib == pytest.approx(0.86, abs=0.01)
    assert (whole.overhead.vision_gib, text.overhead.vision_gib) == (3.5, 0)


def test_multi_token_prediction_loads_its_module_and_caches_its_layer() -> None:
    model = shape("Qwen--Qwen3.6-27B-FP8")
    mtp: dict[str, Any] = {"speculative-config": {"method": "mtp", "num_speculative_tokens": 2}}
    without, with_it = (
        make_plan(model, EngineFlags({"max-model-len": 32768} | given), SPARK)
        for given in ({}, mtp)
    )
    assert isinstance(without, MemoryPlan)
    assert isinstance(with_it, MemoryPlan)
    assert with_it.weights_gib - without.weights_gib == pytest.approx(0.79, abs=0.02)
    assert with_it.sequence_gib > without.sequence_gib


@pytest.mark.parametrize(
    ("backend", "gib"), [("marlin", 65.91), ("triton", 60.78), ("flashinfer_cutlass", 62.3)]
)
def test_the_kernels_of_the_experts_decide_about_5_gib_of_gpt_oss(backend: str, gib: float) -> None:
    model = shape("openai--gpt-oss-120b")
    plan = make_plan(model, EngineFlags({"moe-backend": backend}), SPARK)
    assert isinstance(plan, MemoryPlan)
    assert plan.weights_gib == pytest.approx(gib, abs=1.1)
    assert plan.at_best.weights_gib == plan.weights_gib
    by_default = make_plan(model, EngineFlags(), SPARK)
    assert isinstance(by_default, MemoryPlan)
    assert by_default.weights_gib == pytest.approx(65.91, abs=0.01)
    assert by_default.at_best.weights_gib == pytest.approx(60.78, abs=0.6)


@pytest.mark.parametrize(
    "flags",
    [
        {"kv-cache-dtype": "nvfp4"},
        {"pipeline-parallel-size": 2},
    ],
)
def test_flags_that_are_not_modelled_give_a_reason_and_no_numbers(flags: dict[str, Any]) -> None:
    assert isinstance(make_plan(known_shapes()[QWEN_30B], EngineFlags(flags), SPARK), Unmodelled)


def test_a_drafter_beside_deepseek_v4_is_not_modelled_and_the_model_alone_is() -> None:
    model = shape("deepseek-ai--DeepSeek-V4-Flash")
    mtp: dict[str, Any] = {"speculative-config": {"method": "mtp", "num_speculative_tokens": 1}}
    assert isinstance(make_plan(model, EngineFlags({}), SPARK), MemoryPlan)
    found = make_plan(model, EngineFlags(mtp), SPARK)
    assert isinstance(found, Unmodelled)
    assert "drafter" in found.reason


def test_all_impossible_numbers_are_refused_at_once() -> None:
    flags = {
        "gpu-memory-utilization": 1.5,
        "max-model-len": -1_000,
        "max-num-seqs": -1,
        "max-num-batched-tokens": "many",
        "block-size": True,
        "kv-cache-memory-bytes": float("inf"),
        "tensor-parallel-size": 3,
    }
    with pytest.raises(ConfigError) as raised:
        planned(QWEN_30B, flags)
    named = {problem.where for problem in raised.value.problems}
    assert named == {f"vllm-spark:engine.{flag}" for flag in flags}


MODELS = st.sampled_from([QWEN_30B, QWEN_32B, LLAMA_70B])
VERSIONS = st.sampled_from([None, "0.10.1.1", "0.20", "0.26", "0.33"])
FLAGS = st.fixed_dictionaries(
    {
        "gpu-memory-utilization": st.floats(0.05, 1),
        "max-model-len": st.integers(1, 40960),
        "max-num-seqs": st.integers(1, 2048),
        "max-num-batched-tokens": st.integers(1, 65536),
        "block-size": st.sampled_from([16, 32, 64, 128]),
        "kv-cache-dtype": st.sampled_from(["auto", "fp8", "bfloat16"]),
        "enforce-eager": st.booleans(),
    }
)
ROUNDING_GIB = 1e-9


@given(MODELS, VERSIONS, FLAGS, st.floats(0.05, 1))
def test_a_larger_share_never_holds_fewer_tokens(
    model: str, version: str | None, flags: dict[str, Any], share: float
) -> None:
    small, large = sorted((flags["gpu-memory-utilization"], share))
    fewer, more = (
        planned(model, flags | {"gpu-memory-utilization": value}, version=version)
        for value in (small, large)
    )
    assert fewer.kv_tokens <= more.kv_tokens


@given(MODELS, VERSIONS, FLAGS, st.floats(8, 600), st.floats(8, 600))
def test_more_memory_never_holds_fewer_tokens(
    model: str, version: str | None, flags: dict[str, Any], one: float, other: float
) -> None:
    small, large = (planned(model, flags, Machine(gib), version) for gib in sorted((one, other)))
    assert small.kv_tokens <= large.kv_tokens


@given(
    MODELS,
    VERSIONS,
    FLAGS,
    st.sampled_from(["max-num-seqs", "max-num-batched-tokens"]),
    st.integers(1, 65536),
)
def test_larger_batches_never_hold_more_tokens(
    model: str, version: str | None, flags: dict[str, Any], flag: str, other: int
) -> None:
    small, large = sorted((flags[flag], other))
    more, fewer = (
        planned(model, flags | {flag: value}, version=version) for value in (small, large)
    )
    assert fewer.kv_tokens <= more.kv_tokens


@given(MODELS, VERSIONS, FLAGS, st.integers(1, 40960))
def test_longer_sequences_never_fit_more_often(
    model: str, version: str | None, flags: dict[str, Any], other: int
) -> None:
    short, long = sorted((flags["max-model-len"], other))
    more, fewer = (
        planned(model, flags | {"max-model-len": length}, version=version)
        for length in (short, long)
    )
    assert fewer.full_length_sequences <= more.full_length_sequences


@given(MODELS, VERSIONS, FLAGS)
def test_an_fp8_kv_cache_holds_twice_the_blocks(
    model: str, version: str | None, flags: dict[str, Any]
) -> None:
    wide, narrow = (
        planned(model, flags | {"kv-cache-dtype": dtype}, version=version)
        for dtype in ("bfloat16", "fp8")
    )
    assert narrow.kv_blocks - 2 * wide.kv_blocks in (0, 1)


@given(MODELS, VERSIONS, FLAGS)
def test_two_hosts_never_hold_fewer_tokens_than_one(
    model: str, version: str | None, flags: dict[str, Any]
) -> None:
    alone, shared = (
        planned(model, flags | {"tensor-parallel-size": hosts}, version=version) for hosts in (1, 2)
    )
    assert alone.kv_tokens <= shared.kv_tokens
    assert alone.weights_gib > shared.weights_gib
    assert alone.roofline_tokens_per_second < shared.roofline_tokens_per_second


@given(
    MODELS,
    VERSIONS,
    FLAGS,
    st.sampled_from(["kv-cache-memory-bytes", "num-gpu-blocks-override"]),
    st.integers(1, 2**37),
    st.integers(1, 2**37),
)
def test_a_larger_pool_holds_no_fewer_tokens_and_leaves_the_host_less(
    model: str, version: str | None, flags: dict[str, Any], flag: str, one: int, other: int
) -> None:
    small, large = (
        planned(model, flags | {flag: size}, version=version) for size in sorted((one, other))
    )
    assert small.kv_tokens <= large.kv_tokens
    assert small.headroom_gib >= large.headroom_gib - ROUNDING_GIB


@given(MODELS, VERSIONS, FLAGS, st.floats(0.05, 1))
def test_a_larger_share_never_leaves_the_host_more(
    model: str, version: str | None, flags: dict[str, Any], share: float
) -> None:
    small, large = (
        planned(model, flags | {"gpu-memory-utilization": value}, version=version)
        for value in sorted((flags["gpu-memory-utilization"], share))
    )
    assert small.headroom_gib >= large.headroom_gib - ROUNDING_GIB


@given(MODELS, VERSIONS, FLAGS)
def test_eager_execution_never_holds_fewer_tokens_nor_leaves_the_host_less(
    model: str, version: str | None, flags: dict[str, Any]
) -> None:
    graphs, eager = (
        planned(model, flags | {"enforce-eager": eager}, version=version) for eager in (False, True)
    )
    assert graphs.kv_tokens <= eager.kv_tokens
    assert graphs.headroom_gib <= eager.headroom_gib + ROUNDING_GIB


@given(MODELS, VERSIONS, FLAGS)
def test_what_is_asked_for_is_the_sum_of_its_parts(
    model: str, version: str | None, flags: dict[str, Any]
) -> None:
    plan = planned(model, flags, version=version)
    parts = plan.weights_gib + plan.overhead.subtracted_gib + plan.pool_gib
    assert plan.requested_gib == pytest.approx(parts)
    assert plan.requested_gib == pytest.approx(flags["gpu-memory-utilization"] * 121.69)

"""The KV cache against what vLLM printed, and the rules that any layout obeys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planner_data import DATA, config_path, shape
from vllm_spark.cli.fit import flags_of
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.kv.cached_layers import Attention, State, cached_layers
from vllm_spark.memory.kv.pool import CacheLayout, LayerSpec, lay_out
from vllm_spark.memory.kv.releases import cache_rules
from vllm_spark.memory.kv.specs import CacheFlags, layout_of
from vllm_spark.memory.limits import GIB, Machine
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.problems import Unmodelled

PUBLISHED: list[dict[str, Any]] = json.loads((DATA / "vectors.json").read_text())
ROUNDING_GIB = 0.005
"""A log prints the pool with two decimals, so the true one is this much more or less."""


def planned(case: dict[str, Any], pool_gib: float) -> MemoryPlan:
    flags = flags_of(case["engine"]).replaced_by(
        EngineFlags(
            {
                "max-model-len": case["max_model_len"],
                "max-num-batched-tokens": case["max_num_batched_tokens"],
                "kv-cache-memory-bytes": int(pool_gib * GIB),
            }
        )
    )
    plan = make_plan(shape(case["config"]), flags, Machine(), Version.parse(case["vllm"]))
    assert isinstance(plan, MemoryPlan), plan.reason
    return plan


@pytest.mark.parametrize("case", PUBLISHED, ids=[case["name"] for case in PUBLISHED])
def test_tokens_are_those_that_vllm_printed(case: dict[str, Any]) -> None:
    """To the token, or within what the rounding of the printed pool explains."""
    plan = planned(case, case["pool_gib"])
    least, most = (
        planned(case, case["pool_gib"] + error).kv_tokens for error in (-ROUNDING_GIB, ROUNDING_GIB)
    )
    assert least <= case["tokens"] <= most
    assert plan.kv_tokens == pytest.approx(case["tokens"], rel=4e-4)
    assert (plan.kv_blocks, plan.blocks_per_sequence) == (
        case["blocks"],
        case["blocks_per_request"],
    )
    if case["concurrency"]:
        assert plan.full_length_sequences == pytest.approx(case["concurrency"], abs=0.006)


@pytest.mark.parametrize("case", [case for case in PUBLISHED if case["block"]])
def test_the_block_of_a_hybrid_is_the_one_that_vllm_logged(case: dict[str, Any]) -> None:
    plan = planned(case, case["pool_gib"])
    assert {group.block_tokens for group in plan.layout.groups} == {case["block"]}


RULES = cache_rules(Version.parse("0.20"))
NEWER = cache_rules(Version.parse("0.20.1"))


@pytest.mark.parametrize(
    ("pool_gib", "rules", "tokens", "concurrency"),
    [(62.59, RULES, 585_168, 4.73), (62.74, NEWER, 1_241_920, 4.74)],
)
def test_the_layers_of_a_dflash_drafter_are_cached_too(
    pool_gib: float, rules: Any, tokens: int, concurrency: float
) -> None:
    """Qwen3.6-35B NVFP4 with 8 layers and 15 tokens (jethac/dgx-spark-hijinks)."""
    layers = shape("nvidia--Qwen3.6-35B-A3B-NVFP4").cached
    drafter = [Attention(count=8, kv_heads=4, head_dim=128, value_dim=128)]
    flags = CacheFlags(2, 2, 16, 1, 65536, drafted_tokens=15, caches_prefixes=True)
    layout = layout_of(layers, flags, rules, drafter)
    blocks = layout.blocks(pool_gib * GIB)
    assert layout.tokens(blocks, 262144) == tokens
    assert blocks / layout.blocks_per_request(262144) == pytest.approx(concurrency, abs=0.006)


@pytest.mark.parametrize(
    ("pool_gib", "length", "tokens"),
    [(32.08, 4096, 90_841), (32.08, 131072, 1_247_687), (32.08, 262144, 2_175_276),
     (29.07, 4096, 82_301)],
)  # fmt: skip
def test_the_packed_blocks_of_deepseek_v4(pool_gib: float, length: int, tokens: int) -> None:
    """As a public log of two GPUs printed them; they divide nothing of this cache."""
    config = json.loads(config_path("deepseek-ai--DeepSeek-V4-Flash").read_text())["config"]
    layers = cached_layers(config)
    assert not isinstance(layers, Unmodelled)
    flags = CacheFlags(1, 2, 16, tensor_parallel=2, max_num_batched_tokens=8192)
    layout = layout_of(layers, flags, cache_rules(Version.parse("0.24")))
    assert layout.tokens(layout.blocks(pool_gib * GIB), length) == pytest.approx(tokens, rel=2e-4)


def full_sequence_gib(name: str, engine: str, version: str = "0.29") -> float:
    plan = make_plan(shape(name), flags_of(engine), Machine(), Version.parse(version))
    assert isinstance(plan, MemoryPlan)
    return plan.sequence_gib


def test_minimax_m2_caches_as_vllm_says_in_its_refusal() -> None:
    """eugr/spark-vllm-docker issue 396: 23.25 GiB needed for 196,608 tokens, TP 2."""
    engine = "--max-model-len 196608 --tensor-parallel-size 2"
    assert full_sequence_gib("MiniMaxAI--MiniMax-M2.7-AWQ", engine) == pytest.approx(23.25)


@pytest.mark.parametrize(
    ("name", "engine", "blocks_per_request"),
    [
        ("Qwen--Qwen3.6-35B-A3B-FP8", "", 38),
        ("Qwen--Qwen3.6-27B-FP8", "", 48),
        ("nvidia--NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4", "", 16),
        ("openai--gpt-oss-20b", "", 2313),
    ],
)
def test_requests_take_the_blocks_by_which_published_tokens_come_out_whole(
    name: str, engine: str, blocks_per_request: int
) -> None:
    """Servers of vLLM 0.30 on a GB10 at its default batch, 32,768 tokens each."""
    flags = flags_of(f"--max-model-len 32768 {engine}")
    plan = make_plan(shape(name), flags, Machine(), Version.parse("0.30"))
    assert isinstance(plan, MemoryPlan)
    assert plan.blocks_per_sequence == blocks_per_request


def test_a_latent_is_not_divided_between_gpus() -> None:
    alone, two = (
        full_sequence_gib("zai-org--GLM-4.7-Flash", f"--max-model-len 32768 -tp {number}")
        for number in (1, 2)
    )
    assert alone == two == pytest.approx(32768 * 54_144 / GIB)


def test_sparse_attention_keeps_its_index_besides() -> None:
    """GLM-5: an index of 132 bytes a token in the layers that do not share another's."""
    layers = shape("zai-org--GLM-5.3-FP8").cached
    (index,) = [layer for layer in layers if isinstance(layer, Attention) and layer.fixed_bytes]
    assert (index.count, index.fixed_bytes) == (21, 132)


def test_a_hybrid_without_prefix_caching_keeps_one_state_and_with_it_two() -> None:
    engine = "--max-model-len 1056 --max-num-batched-tokens 2048"
    name, version = "Qwen--Qwen3.6-35B-A3B", "0.24"
    without = full_sequence_gib(name, f"{engine} --no-enable-prefix-caching", version)
    by_default = full_sequence_gib(name, engine, version)
    with_it = full_sequence_gib(name, f"{engine} --enable-prefix-caching", version)
    assert without == by_default
    assert with_it == pytest.approx(by_default * 7 / 4)
    assert full_sequence_gib(name, engine, "0.26") == with_it


def test_since_026_a_window_keeps_two_batches_back_unless_scheduling_is_synchronous() -> None:
    name, engine = "openai--gpt-oss-120b", "--max-model-len 131072 --max-num-batched-tokens 8192"
    one = full_sequence_gib(name, engine, "0.25")
    assert full_sequence_gib(name, engine, "0.26") > one
    assert full_sequence_gib(name, f"{engine} --no-async-scheduling", "0.26") == one


def test_since_029_the_check_at_start_leaves_one_block_out() -> None:
    for version, fits in (("0.28", True), ("0.29", False)):
        flags = EngineFlags({"num-gpu-blocks-override": 64, "max-model-len": 1024})
        plan = make_plan(shape("Qwen--Qwen3-8B"), flags, Machine(), Version.parse(version))
        assert isinstance(plan, MemoryPlan)
        assert plan.holds_a_sequence is fits


def test_groups_take_the_size_of_the_largest_kind_if_that_is_not_much_larger() -> None:
    """gpt-oss-20b with an EAGLE layer, the example in vLLM's source: 13 and 12 layers."""
    full, window = LayerSpec("full", 16, 100), LayerSpec("window", 16, 100, retained_tokens=128)
    new = lay_out([(full, 13), (window, 12)], cache_rules(Version.parse("0.18")), 8192)
    old = lay_out([(full, 13), (window, 12)], cache_rules(Version.parse("0.11")), 8192)
    assert [group.layers for group in new.groups] == [13, 12]
    assert [group.layers for group in old.groups] == [7, 6, 12]


def test_a_page_that_does_not_divide_the_largest_is_padded() -> None:
    full, window = LayerSpec("full", 16, 300), LayerSpec("window", 16, 200, retained_tokens=128)
    layout = lay_out([(full, 2), (window, 2)], NEWER, 2048)
    assert layout.block_bytes == 600
    assert {group.block_tokens for group in layout.groups} == {16}


LAYOUTS = st.builds(
    lambda full, window, states, retained, batch, version: lay_out(
        [
            (LayerSpec("full", 16, 4096), full),
            (LayerSpec("window", 16, 2048, retained_tokens=retained), window),
            (LayerSpec("state", 16, 3000, state_pages=2), states),
        ],
        cache_rules(Version.parse(version)),
        batch,
    ),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 8192),
    st.integers(1, 16384),
    st.sampled_from(["0.11", "0.13", "0.20", "0.26", "0.33"]),
)


@given(LAYOUTS, st.integers(1, 2**38), st.integers(1, 2**38), st.integers(1, 10**6))
def test_a_larger_pool_never_holds_fewer_tokens(
    layout: CacheLayout, one: int, other: int, length: int
) -> None:
    small, large = sorted((one, other))
    assert layout.tokens(layout.blocks(small), length) <= layout.tokens(
        layout.blocks(large), length
    )


@given(LAYOUTS, st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_longer_request_never_takes_fewer_blocks(
    layout: CacheLayout, one: int, other: int
) -> None:
    short, long = sorted((one, other))
    assert layout.blocks_per_request(short) <= layout.blocks_per_request(long)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9000), st.integers(1, 9000))
def test_a_wider_window_never_takes_fewer_blocks(
    full: int, window: int, one: int, other: int
) -> None:
    narrow, wide = (
        lay_out(
            [
                (LayerSpec("full", 16, 4096), full),
                (LayerSpec("window", 16, 4096, retained_tokens=retained), window),
            ],
            NEWER,
            2048,
        ).blocks_per_request(131072)
        for retained in sorted((one, other))
    )
    assert narrow <= wide


@given(LAYOUTS, st.integers(1, 2**38), st.integers(1, 10**6))
def test_the_longest_request_fits_and_one_token_more_does_not(
    layout: CacheLayout, pool: int, limit: int
) -> None:
    blocks = layout.blocks(pool)
    longest = layout.longest(blocks, limit)
    if longest:
        assert layout.blocks_per_request(longest) <= layout.usable(blocks)
    if longest < limit:
        assert layout.blocks_per_request(longest + 1) > layout.usable(blocks)


def test_a_state_grows_by_the_tokens_that_a_draft_proposes() -> None:
    (state,) = [layer for layer in shape("Qwen--Qwen3.5-27B").cached if isinstance(layer, State)]
    sizes = [state.page_bytes(1, drafted, 2, 4) for drafted in (0, 7)]
    assert sizes == [3_207_168, 3_350_528]

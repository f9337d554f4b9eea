"""The block and the page of each cached layer, for the flags of one server.

For attention a page is the block's tokens times the bytes of one token. A state layer's page is
one state, so where a model has both, vLLM makes the attention block long enough for its page to
hold a state, and pads the state's page up to it (`_align_hybrid_block_size`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vllm_spark.memory.kv.cached_layers import Attention, CachedLayers, State
from vllm_spark.memory.kv.deepseek_v4 import CompressedLatents, packed_layout
from vllm_spark.memory.kv.pool import CacheLayout, LayerSpec, lay_out
from vllm_spark.memory.kv.releases import CacheRules

StateMode = Literal["none", "align", "all"]
"""Which states vLLM keeps for prefix caching: none, the last block's, or every block's."""

_MLA_BLOCK_ALIGNMENT = 128
_GDN_CHECKPOINT_ALIGNMENT = 64
_SPARSE_MLA_FP8_BYTES = 656
"""`fp8_ds_mla`: 512 values in FP8, four scales, 64 rotary values in 16 bits."""


@dataclass(frozen=True)
class CacheFlags:
    """What of a server's flags decides about its KV cache."""

    element_bytes: int
    dtype_bytes: int
    block_tokens: int
    tensor_parallel: int = 1
    max_num_batched_tokens: int = 2048
    drafted_tokens: int = 0
    """num_speculative_tokens."""
    drafts_with_mtp: bool = False
    """Whether the checkpoint's own layers of multi-token prediction are loaded."""
    caches_prefixes: bool | None = None
    """None is vLLM's own default."""
    async_scheduling: bool = True
    state_bytes: int | None = None
    """Bytes of a state's element, by mamba-ssm-cache-dtype; None is the model's choice."""
    conv_bytes: int | None = None
    hybrid_manager: bool = True
    """False makes sliding windows keep every token."""


def layout_of(
    layers: Sequence[CachedLayers],
    flags: CacheFlags,
    rules: CacheRules,
    draft: Sequence[CachedLayers] = (),
) -> CacheLayout:
    """The groups and blocks of a server. `draft` are the cached layers of a draft model."""
    batches = rules.batches_in_flight if flags.async_scheduling else 1
    for layer in layers:
        if isinstance(layer, CompressedLatents):
            return packed_layout(layer, rules, flags.max_num_batched_tokens, batches)
    chosen = [layer for layer in layers if flags.drafts_with_mtp or not _drafts(layer)]
    states = [layer for layer in chosen if isinstance(layer, State)]
    attention = [layer for layer in chosen if isinstance(layer, Attention)]
    sparse = any(layer.fixed_bytes for layer in attention)
    block = flags.block_tokens
    specs: list[tuple[LayerSpec, int]] = []
    if states:
        mode = state_mode(states[0], flags, rules)
        block, specs = _hybrid(states, attention, flags, rules, mode)
    specs += [(_attention(layer, flags, block, sparse), layer.count) for layer in attention]
    specs += [
        (_attention(layer, flags, block, sparse=False), layer.count)
        for layer in draft
        if isinstance(layer, Attention)
    ]
    return lay_out(specs, rules, batches * flags.max_num_batched_tokens)


def state_mode(state: State, flags: CacheFlags, rules: CacheRules) -> StateMode:
    """Which states are kept (`MambaModelConfig`); Gated DeltaNet never keeps them all."""
    caches = rules.hybrids_cache_prefixes if flags.caches_prefixes is None else True
    if not caches or flags.caches_prefixes is False:
        return "none"
    every = rules.caches_every_state and state.kind == "mamba2" and not flags.drafted_tokens
    return "all" if every else "align"


def _drafts(layer: CachedLayers) -> bool:
    return isinstance(layer, Attention) and layer.drafts


def _token_bytes(layer: Attention, flags: CacheFlags, sparse: bool = False) -> int:
    """Bytes that one token leaves in one layer, on one GPU."""
    if layer.fixed_bytes is not None:
        return layer.fixed_bytes
    if layer.latent and sparse and flags.element_bytes == 1:
        return _SPARSE_MLA_FP8_BYTES
    heads = 1 if layer.latent else max(1, layer.kv_heads // flags.tensor_parallel)
    return heads * (layer.head_dim + layer.value_dim) * flags.element_bytes


def _attention(layer: Attention, flags: CacheFlags, block: int, sparse: bool) -> LayerSpec:
    page = block * _token_bytes(layer, flags, sparse)
    family = f"{layer.kv_heads}x{layer.head_dim}"
    if layer.retained_tokens is None or not flags.hybrid_manager:
        return LayerSpec("full", block, page, family=family)
    kind: Literal["chunk", "window"] = "chunk" if layer.chunked else "window"
    return LayerSpec(kind, block, page, layer.retained_tokens, family=family)


def _hybrid(
    states: list[State],
    attention: list[Attention],
    flags: CacheFlags,
    rules: CacheRules,
    mode: StateMode,
) -> tuple[int, list[tuple[LayerSpec, int]]]:
    """The attention block that holds a state, and the specs of the state layers."""
    sizes = {state: _state_bytes(state, flags) for state in states}
    largest = max(sizes.values())
    if not attention:
        return flags.block_tokens, [
            (LayerSpec("state", flags.block_tokens, size, state_pages=1), state.count)
            for state, size in sizes.items()
        ]
    token = max(_token_bytes(layer, flags) for layer in attention)
    step = flags.block_tokens
    if any(layer.latent for layer in attention):
        step = max(step, _MLA_BLOCK_ALIGNMENT)
    checkpoints = {
        state: mode == "align"
        and (rules.checkpoints_mamba if state.kind == "mamba2" else rules.checkpoints_gdn)
        for state in states
    }
    if any(made and state.kind == "gdn" for state, made in checkpoints.items()):
        step = math.lcm(step, _GDN_CHECKPOINT_ALIGNMENT)
    if mode == "all":
        step = math.lcm(step, states[0].chunk_tokens)
    block = max(flags.block_tokens, step * math.ceil(largest / (step * token)))
    pages = {"none": 1, "align": 2, "all": 0}[mode] + flags.drafted_tokens
    return block, [
        (
            LayerSpec(
                "state",
                block,
                block * token,
                state_pages=pages + checkpoints[state],
                every_block=mode == "all",
                family=state.kind,
            ),
            state.count,
        )
        for state in states
    ]


def _state_bytes(state: State, flags: CacheFlags) -> int:
    own = flags.dtype_bytes if state.float32 is None else (4 if state.float32 else 2)
    return state.page_bytes(
        flags.tensor_parallel,
        flags.drafted_tokens,
        flags.conv_bytes or flags.dtype_bytes,
        flags.state_bytes or own,
    )

"""DeepSeek V4: compressed latents, sliding windows and compressor states in packed blocks.

Its layers have pages of several sizes, and vLLM packs those of one group side by side into a block
instead of giving all the largest page. A block takes the same bytes in every group.

Sources: `models/deepseek_v4/{attention,compressor}.py`, `backends/mla/sparse_swa.py`,
`_get_kv_cache_groups_uniform_groups` and what lays out packed blocks, releases 0.20.1 to 0.27.1.
A drafter's layers are not in these formulas.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vllm_spark.memory.kv.pool import CacheLayout, Group, LayerSpec
from vllm_spark.memory.kv.releases import CacheRules

_ALIGNMENT = 576
_LATENT_BYTES = 584
"""448 values in FP8, 64 rotary values in 16 bits, 8 bytes of scales."""
_BLOCK = 256
_WINDOW_BLOCK = 64
FINE, _COARSE = 4, 128
"""Tokens that one latent stands for, in the two kinds of compressing layers."""


@dataclass(frozen=True)
class CompressedLatents:
    """The cached layers of the model: all keep a window, some compress 4 or 128 tokens to one."""

    windows: int
    fine: int
    coarse: int
    head_dim: int
    index_dim: int
    window: int


def deepseek_v4_layers(config: Mapping[str, Any]) -> tuple[CompressedLatents, ...]:
    """The cached layers that a config.json describes."""
    layers = int(config["num_hidden_layers"])
    ratios = list(config["compress_ratios"])[:layers]
    return (
        CompressedLatents(
            windows=layers,
            fine=ratios.count(FINE),
            coarse=ratios.count(_COARSE),
            head_dim=int(config["head_dim"]),
            index_dim=int(config["index_head_dim"]),
            window=int(config["sliding_window"]),
        ),
    )


def packed_layout(
    layers: CompressedLatents, rules: CacheRules, max_num_batched_tokens: int, batches: int
) -> CacheLayout:
    """Groups and blocks. Tensor parallelism divides none of it."""
    latent = _aligned(_BLOCK // FINE * _LATENT_BYTES)
    indexer = _aligned(_BLOCK // FINE * (layers.index_dim + 4))
    coarse = _aligned(_BLOCK // _COARSE * _LATENT_BYTES)
    window = LayerSpec(
        "window", _WINDOW_BLOCK, _aligned(_WINDOW_BLOCK * _LATENT_BYTES), layers.window
    )
    full = Group(
        (
            (LayerSpec("full", _BLOCK, latent), layers.fine),
            (LayerSpec("full", _BLOCK, indexer, family="indexer"), layers.fine),
            (LayerSpec("full", _BLOCK, coarse), layers.coarse),
        )
    )
    tuples = [layers.fine, layers.windows, layers.fine, layers.coarse]
    size = _least_padding(tuples, at_least=layers.fine)
    parts = math.ceil(layers.windows / size)
    groups = [
        full,
        *(Group(((window, len(range(first, layers.windows, parts))),)) for first in range(parts)),
        _compressor(layers.fine, layers.head_dim, FINE, 2, latent, (layers.index_dim, indexer)),
        _compressor(layers.coarse, layers.head_dim, _COARSE, 1, latent, None),
    ]
    return CacheLayout(
        tuple(groups),
        _block_bytes(groups, rules),
        batches * max_num_batched_tokens,
        rules,
        weighs_pages=not rules.packs_densely,
    )


def _compressor(
    layers: int, head_dim: int, ratio: int, overlap: int, page: int, index: tuple[int, int] | None
) -> Group:
    """States of compressors in 32 bits, on pages of the sizes that the latents have."""
    block = 4 if ratio == FINE else 8
    spec = LayerSpec(
        "window",
        block,
        _aligned(block * 2 * overlap * head_dim * 4),
        overlap * ratio,
        family="compressor",
    )
    specs = [(replace(spec, page_bytes=max(page, spec.page_bytes)), layers)]
    if index is not None:
        size, page = index
        state = _aligned(block * 2 * overlap * size * 4)
        specs.append((replace(spec, page_bytes=max(page, state), family="indexer"), layers))
    return Group(tuple(specs))


def _block_bytes(groups: Sequence[Group], rules: CacheRules) -> int:
    """Since 0.27 the largest group decides; before, the largest count of pages of each size."""
    if rules.packs_densely:
        return max(group.page_bytes for group in groups)
    most: Counter[int] = Counter()
    for group in groups:
        here: Counter[int] = Counter()
        for spec, count in group.specs:
            here[spec.page_bytes] += count
        most |= here
    if rules.packs_by_size:
        return sum(page * count for page, count in most.items())
    return sum(most) * max(most.values())


def _least_padding(counts: Sequence[int], at_least: int) -> int:
    """The group size with the least padding, the larger of equals (`_approximate_gcd`)."""
    sizes = range(max(1, at_least), max(counts) + 1)
    return min(sizes, key=lambda size: (sum(-count % size for count in counts), -size))


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT

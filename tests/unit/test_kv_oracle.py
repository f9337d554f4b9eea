"""The cache of one request, before blocks and groups, against another program: kvfit 0.3.0 (MIT).

It counts slope and fixed part of a request well, all states in 32 bits. It knows no pages, no
batches in flight and no run-time memory, and is wrong by default about the index of sparse
attention. DeepSeek V4 is left out: its packed blocks have nothing to compare before paging.

"""

from __future__ import annotations

import json
from typing import Any

import pytest
from kvfit import UnsupportedArchitecture, estimate_cache

from tests.planner_data import CONFIGS, shape
from vllm_spark.memory.kv.cached_layers import Attention, State

FAR, FARTHER = 131_072, 135_168
"""Tokens, both beyond every window here."""


def estimated(config: dict[str, Any], tokens: int) -> float:
    return float(estimate_cache(config, context_tokens=tokens, kv_bytes=2).total_bytes)


def known_to_both() -> list[str]:
    names = []
    for path in CONFIGS:
        config = json.loads(path.read_text())["config"]
        if config.get("compress_ratios") or config.get("index_topk"):
            continue
        try:
            estimated(config, FAR)
        except UnsupportedArchitecture:
            continue
        names.append(path.stem)
    return names


@pytest.mark.parametrize("name", known_to_both())
def test_slope_and_fixed_part_of_a_request_are_the_oracles(name: str) -> None:
    config = json.loads(next(path for path in CONFIGS if path.stem == name).read_text())["config"]
    far, farther = (estimated(config, tokens) for tokens in (FAR, FARTHER))
    slope = (farther - far) / (FARTHER - FAR)
    assert shape(name).kv_bytes_per_token(2, 1) == slope
    fixed = 0
    for layer in shape(name).cached:
        if isinstance(layer, State):
            fixed += layer.count * layer.page_bytes(1, 0, conv_bytes=2, state_bytes=4)
        elif isinstance(layer, Attention) and layer.retained_tokens and not layer.drafts:
            token = layer.kv_heads * (layer.head_dim + layer.value_dim) * 2
            fixed += layer.count * layer.retained_tokens * token
    assert fixed == pytest.approx(far - slope * FAR, rel=1e-6, abs=1)


def test_the_oracle_knows_models_of_every_kind_of_layer() -> None:
    names = known_to_both()
    assert len(names) > 35
    for part in ("gpt-oss", "gemma-4", "Nemotron-3-Super", "Qwen3.5-27B", "Llama"):
        assert any(part in name for name in names)

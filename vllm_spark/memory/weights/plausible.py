"""Sizes that cannot be a model's: refused before anything is counted by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vllm_spark.errors import ConfigError
from vllm_spark.memory.kv.cached_layers import Attention, State
from vllm_spark.memory.kv.deepseek_v4 import CompressedLatents
from vllm_spark.memory.shape import ModelShape
from vllm_spark.memory.weights import families
from vllm_spark.problems import Problem

MOST_LAYERS, _LARGEST = 10_000, 10**12
"""Beyond them a number is no model's, and counting by it would take forever."""


def check_numbers(text: Mapping[str, Any]) -> None:
    """ConfigError with every size that is missing or is no positive whole number."""
    keys = ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size",
            "max_position_embeddings"]  # fmt: skip
    sparse = families.experts_of(text) if is_size(text.get("num_experts", 1)) else 0
    keys.append("moe_intermediate_size" if _has_own_expert_size(text) else "intermediate_size")
    if sparse and not families.experts_per_token(text):
        keys.append("num_experts_per_tok")
    keys += [key for key in ("num_key_value_heads", "head_dim") if text.get(key)]
    problems = []
    for key in keys:
        value = text.get(key)
        most = MOST_LAYERS if key == "num_hidden_layers" else _LARGEST
        if not is_size(value, most):
            what = "is missing" if value is None else f"is {value!r}, not a size of a model"
            fix = "use the model's whole config.json, unedited"
            problems.append(Problem(f"config.json: {key}", what, fix))
    if problems:
        raise ConfigError(problems)


def is_size(value: object, most: int = _LARGEST) -> bool:
    """Whether a value of a config is a whole number from 1 to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _has_own_expert_size(text: Mapping[str, Any]) -> bool:
    return bool(families.experts_of(text)) and "intermediate_size" not in text


def check_shape(shape: ModelShape) -> None:
    """ValueError for sizes that were read off other keys and cannot be a model's."""
    sizes = [shape.positions, shape.query_size, shape.ffn_size, *_cache_sizes(shape)]
    sizes += [size for linear in shape.linears for size in (linear.inputs, linear.outputs)]
    extra = (shape.rotary_elements, shape.vision_parameters or 0)
    if not all(0 < size <= _LARGEST for size in sizes) or not all(
        0 <= size <= _LARGEST for size in extra
    ):
        raise ValueError("a size that no model has")
    if not shape.cached:
        raise ValueError("no layer that keeps a cache")


def _cache_sizes(shape: ModelShape) -> Iterator[int]:
    for layer in shape.cached:
        match layer:
            case Attention():
                yield from (layer.kv_heads, layer.head_dim, layer.value_dim + 1)
                yield layer.fixed_bytes if layer.fixed_bytes is not None else 1
                yield layer.retained_tokens if layer.retained_tokens is not None else 1
            case State():
                yield from (layer.conv_channels, layer.conv_kernel, layer.heads)
                yield from (layer.head_elements, layer.groups + 1, layer.group_channels + 1)
                yield layer.chunk_tokens
            case CompressedLatents():
                yield from (layer.fine, layer.coarse, layer.head_dim, layer.index_dim, layer.window)

"""The size of a vision tower, for the multimodal families whose layers we know.

vLLM keeps the tower in 16 bits beside the quantised language model, half a GiB to a GiB of it:
enough to matter to a plan, so it is counted where the layers are known and named as uncounted where
they are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def vision_parameters(config: Mapping[str, Any]) -> int | None:
    """Parameters of the tower that `vision_config` describes: 0 without one, None if not known."""
    vision = config.get("vision_config")
    if not vision:
        return 0
    count = {
        "qwen3_vl": _qwen3_vl,
        "qwen3_vl_moe": _qwen3_vl,
        "qwen2_5_vl": _qwen2_5_vl,
    }.get(str(config.get("model_type")))
    try:
        return count(vision) if count else None
    except KeyError:
        return None


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _patches(vision: Mapping[str, Any]) -> int:
    channels: int = vision.get("in_channels", vision.get("in_chans", 3))
    return channels * int(vision["temporal_patch_size"]) * int(vision["patch_size"]) ** 2


def _qwen3_vl(vision: Mapping[str, Any]) -> int:
    hidden, ffn, output = (
        int(vision[key]) for key in ("hidden_size", "intermediate_size", "out_hidden_size")
    )
    merged = hidden * int(vision["spatial_merge_size"]) ** 2
    layer_norm = 2 * hidden
    block = (
        2 * layer_norm
        + _linear(hidden, 3 * hidden)
        + _linear(hidden, hidden)
        + _linear(hidden, ffn)
        + _linear(ffn, hidden)
    )
    merger = _linear(merged, merged) + _linear(merged, output)
    deepstack = len(vision["deepstack_visual_indexes"]) * (2 * merged + merger)
    embeddings = _linear(_patches(vision), hidden) + int(vision["num_position_embeddings"]) * hidden
    return embeddings + int(vision["depth"]) * block + layer_norm + merger + deepstack


def _qwen2_5_vl(vision: Mapping[str, Any]) -> int:
    hidden, ffn, output = (
        int(vision[key]) for key in ("hidden_size", "intermediate_size", "out_hidden_size")
    )
    merged = hidden * int(vision["spatial_merge_size"]) ** 2
    block = (
        2 * hidden
        + _linear(hidden, 3 * hidden)
        + _linear(hidden, hidden)
        + 2 * _linear(hidden, ffn)
        + _linear(ffn, hidden)
    )
    merger = hidden + _linear(merged, merged) + _linear(merged, output)
    return _patches(vision) * hidden + int(vision["depth"]) * block + merger

"""The size of a vision tower, for the multimodal families whose layers we know.

vLLM keeps the tower in 16 bits beside the quantised language model, half a GiB to a GiB of it:
enough to matter to a plan. Where the layers are known it is counted; elsewhere a note says that it
is not.
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
        "qwen3_5": _qwen3_vl,
        "qwen3_5_moe": _qwen3_vl,
        "qwen2_5_vl": _qwen2_5_vl,
        "gemma3": _siglip,
        "gemma4": _gemma4,
    }.get(str(config.get("model_type")))
    text = config.get("text_config") or config
    try:
        return count(vision, int(text["hidden_size"])) if count else None
    except (KeyError, TypeError):
        return None


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _patches(vision: Mapping[str, Any]) -> int:
    channels: int = vision.get("in_channels", vision.get("in_chans", 3))
    return channels * int(vision["temporal_patch_size"]) * int(vision["patch_size"]) ** 2


def _qwen3_vl(vision: Mapping[str, Any], _text_hidden: int) -> int:
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


def _qwen2_5_vl(vision: Mapping[str, Any], _text_hidden: int) -> int:
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


def _siglip(vision: Mapping[str, Any], text_hidden: int) -> int:
    """The encoder of Gemma 3, with the projection into the language model."""
    hidden, ffn = int(vision["hidden_size"]), int(vision["intermediate_size"])
    patch = int(vision["patch_size"])
    positions = (int(vision["image_size"]) // patch) ** 2
    block = 4 * _linear(hidden, hidden) + _linear(hidden, ffn) + _linear(ffn, hidden) + 4 * hidden
    embeddings = _linear(3 * patch**2, hidden) + positions * hidden
    return (
        embeddings
        + int(vision["num_hidden_layers"]) * block
        + 2 * hidden
        + hidden
        + hidden * text_hidden
    )


def _gemma4(vision: Mapping[str, Any], text_hidden: int) -> int:
    """The encoder of Gemma 4: gated layers with four norms, positions for two axes."""
    hidden, ffn = int(vision["hidden_size"]), int(vision["intermediate_size"])
    block = 4 * hidden**2 + 3 * hidden * ffn + 4 * hidden + 2 * int(vision["head_dim"])
    patches = 3 * int(vision["patch_size"]) ** 2 * hidden
    positions = 2 * int(vision["position_embedding_size"]) * hidden
    return int(vision["num_hidden_layers"]) * block + positions + patches + hidden * text_hidden

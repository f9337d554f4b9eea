"""Which layers of a model keep a cache, and what one layer keeps: read off its config.json.

A config names the kinds of its layers in half a dozen ways. Here each becomes one list of kinds,
and each kind becomes sizes: heads and dimensions for attention, a latent for MLA, shapes for the
state of Gated DeltaNet and Mamba-2 layers. Nothing here depends on the flags of a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vllm_spark.memory.kv.deepseek_v4 import CompressedLatents, deepseek_v4_layers
from vllm_spark.problems import Unmodelled

LayerKind = Literal["full", "window", "chunk", "gdn", "mamba2", "none"]

_NAMES: Mapping[str, LayerKind] = {
    "full_attention": "full",
    "attention": "full",
    "*": "full",
    "sliding_attention": "window",
    "chunked_attention": "chunk",
    "linear_attention": "gdn",
    "mamba": "mamba2",
    "mamba2": "mamba2",
    "M": "mamba2",
    "moe": "none",
    "E": "none",
    "mlp": "none",
    "-": "none",
}
"""Names of layers in `layer_types`, `layers_block_type` and `hybrid_override_pattern`."""

_OTHER_STATES = ("ssm_cfg", "mamba_d_state", "mamba_d_ssm", "attn_layer_period", "block_types",
                 "conv_L_cache", "linear_attn_config")  # fmt: skip
"""Keys of hybrids whose states are not known here."""


@dataclass(frozen=True)
class Attention:
    """`count` layers that keep keys and values of `head_dim` and `value_dim` for each KV head.

    With `latent`, one vector for all heads, which tensor parallelism does not divide.
    """

    count: int
    kv_heads: int
    head_dim: int
    value_dim: int
    retained_tokens: int | None = None
    chunked: bool = False
    latent: bool = False
    fixed_bytes: int | None = None
    """Bytes for each token, for caches with a format of their own, such as a sparse indexer's."""
    drafts: bool = False
    """Whether the layer exists for speculative decoding only."""


@dataclass(frozen=True)
class State:
    """`count` layers that keep a state of fixed size for each request.

    A convolution's window over `conv_channels` + `groups` * `group_channels`, and `heads` states
    of `head_elements`. `float32` tells the format of the states; None leaves it to the model's.
    """

    count: int
    kind: Literal["gdn", "mamba2"]
    conv_channels: int
    conv_kernel: int
    heads: int
    head_elements: int
    groups: int = 0
    group_channels: int = 0
    float32: bool | None = None
    chunk_tokens: int = 256

    def page_bytes(
        self, tensor_parallel: int, drafted: int, conv_bytes: int, state_bytes: int
    ) -> int:
        """Bytes of one state on one GPU (`MambaStateShapeCalculator`).

        `drafted` is the number of speculative tokens, which the convolution's window keeps too.
        """
        groups = self.groups if self.groups % tensor_parallel == 0 else tensor_parallel
        channels = (self.conv_channels + groups * self.group_channels) // tensor_parallel
        convolution = channels * (self.conv_kernel - 1 + drafted) * conv_bytes
        return convolution + self.heads // tensor_parallel * self.head_elements * state_bytes


CachedLayers = Attention | State | CompressedLatents


def cached_layers(config: Mapping[str, Any]) -> tuple[CachedLayers, ...] | Unmodelled:
    """The cached layers that the text part of a config.json describes."""
    if config.get("compress_ratios"):
        return deepseek_v4_layers(config)
    kinds = layer_kinds(config)
    if isinstance(kinds, Unmodelled):
        return kinds
    shared = int(config.get("num_kv_shared_layers") or 0)  # the last layers reuse earlier caches
    counts = Counter(kinds[: len(kinds) - shared])
    layers: list[CachedLayers] = []
    for kind, count in counts.items():
        if kind in ("gdn", "mamba2"):
            layers.append(_gdn(config, count) if kind == "gdn" else _mamba2(config, count))
        elif kind != "none":
            layers += _attention(config, kind, count)
    if config.get("index_topk"):
        own = config.get("indexer_types") or ["full"] * len(kinds)
        layers.append(_indexer(config, own.count("full")))
    layers += _sparse_index(config)
    return (*layers, *_draft_layers(config))


def layer_kinds(config: Mapping[str, Any]) -> list[LayerKind] | Unmodelled:
    """The kind of each layer, first to last."""
    layers = int(config["num_hidden_layers"])
    named = config.get("layers_block_type") or config.get("hybrid_override_pattern")
    named = named or config.get("layer_types")
    if named:
        unknown = sorted({str(name) for name in named} - _NAMES.keys())
        if unknown:
            return Unmodelled(f"layers of the kind {', '.join(unknown)}")
        kinds = [_NAMES[name] for name in named][:layers]
        if not config.get("sliding_window"):
            return ["full" if kind == "window" else kind for kind in kinds]
        return kinds
    attention_types = set(config.get("attn_type_list") or (1,))
    if attention_types != {1}:
        return Unmodelled("the state of lightning attention (attn_type_list)")
    other = [key for key in _OTHER_STATES if config.get(key)]
    if other:
        return Unmodelled(f"a hybrid of attention and state-space layers ({', '.join(other)})")
    if interval := config.get("full_attention_interval"):
        return ["gdn" if (layer + 1) % interval else "full" for layer in range(layers)]
    if (chunk := config.get("attention_chunk_size")) and chunk < _positions(config):
        dense = config.get("no_rope_layers") or [(layer + 1) % 4 for layer in range(layers)]
        return ["chunk" if rotary else "full" for rotary in dense]
    window = config.get("sliding_window")
    # A window as wide as the longest sequence never closes: Phi-3-128k and Phi-4-mini have one.
    if not window or window >= _positions(config) or not config.get("use_sliding_window", True):
        return ["full"] * layers
    if pattern := _pattern(config):
        return ["window" if (layer + 1) % pattern else "full" for layer in range(layers)]
    return ["window"] * layers


def _positions(config: Mapping[str, Any]) -> int:
    return int(config.get("max_position_embeddings") or 2**62)


def _pattern(config: Mapping[str, Any]) -> int:
    """Every how many layers one attends to everything, where a number tells."""
    by_family = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}
    default = by_family.get(str(config.get("model_type")), 0)
    return int(config.get("sliding_window_pattern") or default)


def _heads(config: Mapping[str, Any], kind: LayerKind) -> tuple[int, int]:
    """KV heads and their dimension; Gemma 4 has others where it attends to everything."""
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    if kind == "full" and config.get("global_head_dim"):
        head_dim = int(config["global_head_dim"])
        kv_heads = int(config.get("num_global_key_value_heads") or kv_heads)
    return kv_heads, head_dim


def _attention(config: Mapping[str, Any], kind: LayerKind, count: int) -> list[CachedLayers]:
    retained = {"window": "sliding_window", "chunk": "attention_chunk_size"}.get(kind)
    tokens = int(config[retained]) if retained else None
    if config.get("kv_lora_rank"):
        size = int(config["kv_lora_rank"]) + int(config["qk_rope_head_dim"])
        return [Attention(count, 1, size, 0, tokens, latent=True)]
    kv_heads, head_dim = _heads(config, kind)
    value = int(config.get("v_head_dim") or head_dim)
    return [Attention(count, kv_heads, head_dim, value, tokens, chunked=kind == "chunk")]


def _indexer(config: Mapping[str, Any], count: int) -> Attention:
    """DeepSeek sparse attention: an FP8 key for each token, with a scale for each 128 of it."""
    size = int(config["index_head_dim"])
    return Attention(count, 1, size, 0, latent=True, fixed_bytes=size + size // 128 * 4)


def _sparse_index(config: Mapping[str, Any]) -> list[CachedLayers]:
    """MiniMax M3: one index key in 16 bits for each token of a sparse layer."""
    sparse = config.get("sparse_attention_config") or {}
    layers = sum(sparse.get("sparse_attention_freq") or ())
    if not sparse.get("use_sparse_attention") or not layers:
        return []
    size = int(sparse["sparse_index_dim"])
    return [Attention(layers, 1, size, 0, latent=True, fixed_bytes=2 * size)]


def _gdn(config: Mapping[str, Any], count: int) -> State:
    keys, values = int(config["linear_num_key_heads"]), int(config["linear_num_value_heads"])
    key_dim, value_dim = int(config["linear_key_head_dim"]), int(config["linear_value_head_dim"])
    return State(
        count=count,
        kind="gdn",
        conv_channels=2 * keys * key_dim + values * value_dim,
        conv_kernel=int(config["linear_conv_kernel_dim"]),
        heads=values,
        head_elements=value_dim * key_dim,
        float32=_is_float32(config.get("mamba_ssm_dtype")),
    )


def _mamba2(config: Mapping[str, Any], count: int) -> State:
    heads, head_dim = int(config["mamba_num_heads"]), int(config["mamba_head_dim"])
    size = int(config["ssm_state_size"])
    return State(
        count=count,
        kind="mamba2",
        conv_channels=heads * head_dim,
        conv_kernel=int(config["conv_kernel"]),
        heads=heads,
        head_elements=head_dim * size,
        groups=int(config["n_groups"]),
        group_channels=2 * size,
        float32=_is_float32(config.get("mamba_ssm_cache_dtype") or "float32"),
        chunk_tokens=int(config.get("chunk_size") or 256),
    )


def _is_float32(dtype: object) -> bool | None:
    return None if dtype is None else dtype == "float32"


def _draft_layers(config: Mapping[str, Any]) -> list[CachedLayers]:
    """Layers of multi-token prediction that the checkpoint brings, which cache if MTP is on."""
    pattern = config.get("mtp_layers_block_type") or config.get("mtp_hybrid_override_pattern")
    modules = draft_modules(config)
    if pattern:
        modules *= sum(_NAMES.get(name) == "full" for name in pattern)
    if not modules:
        return []
    (first, *_) = _attention(config, "full", modules)
    assert isinstance(first, Attention)
    return [Attention(modules, first.kv_heads, first.head_dim, first.value_dim,
                      latent=first.latent, drafts=True)]  # fmt: skip


_MOST_MODULES = 64


def draft_modules(config: Mapping[str, Any]) -> int:
    """Modules of multi-token prediction in the checkpoint. ValueError for a number of no model."""
    keys = ("mtp_num_hidden_layers", "num_nextn_predict_layers", "num_mtp_modules")
    modules = next((int(config[key]) for key in keys if config.get(key)), 0)
    if not 0 <= modules <= _MOST_MODULES:
        raise ValueError(f"{modules} modules of multi-token prediction")
    return modules

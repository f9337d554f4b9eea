"""The weight matrices of each model family, layer by layer.

Families are listed by name, because their code fixes biases and norms that no config.json
mentions: a family that is not listed is refused rather than guessed. Parameter counts agree to the
last digit with those that the Hub publishes (tests/unit/test_shape.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vllm_spark.memory.kv.cached_layers import draft_modules
from vllm_spark.memory.weights.linears import ExpertSide, Linear

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Family:
    """What a model family fixes in code, so that its config.json does not say it."""

    qkv_bias: bool = False
    bias_key: str = ""  # key that puts a bias on q, k, v and o
    query_key_norm: bool = False
    norm_over_heads: bool = False  # the norm spans all heads together
    norms_per_layer: int = 2
    tied_by_default: bool = False
    output_gate: bool = False  # q_proj brings a gate of its own size
    experts_name: str = "mlp"  # below a layer


FAMILIES = {
    "llama": Family(bias_key="attention_bias"),
    "smollm3": Family(bias_key="attention_bias", tied_by_default=True),
    "granite": Family(bias_key="attention_bias"),
    "mistral": Family(),
    "mixtral": Family(),
    "phi3": Family(),
    "gemma": Family(tied_by_default=True),
    "gemma2": Family(tied_by_default=True, norms_per_layer=4),
    "gemma3": Family(tied_by_default=True, norms_per_layer=4, query_key_norm=True),
    "gemma4": Family(tied_by_default=True, norms_per_layer=4, query_key_norm=True, experts_name=""),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family(qkv_bias=True),
    "qwen3": Family(bias_key="attention_bias", query_key_norm=True),
    "qwen3_moe": Family(bias_key="attention_bias", query_key_norm=True),
    "qwen3_next": Family(bias_key="attention_bias", query_key_norm=True, output_gate=True),
    "qwen3_5": Family(bias_key="attention_bias", query_key_norm=True, output_gate=True),
    "qwen3_5_moe": Family(bias_key="attention_bias", query_key_norm=True, output_gate=True),
    "gpt_oss": Family(bias_key="attention_bias"),
    "nemotron_h": Family(bias_key="attention_bias", norms_per_layer=1),
    "minimax_m2": Family(
        query_key_norm=True, norm_over_heads=True, experts_name="block_sparse_moe"
    ),
    "glm4_moe": Family(qkv_bias=True),
    "glm4_moe_lite": Family(),
    "glm_moe_dsa": Family(),
    "deepseek_v2": Family(),
    "deepseek_v3": Family(),
    "deepseek_v32": Family(),
    "deepseek_v4": Family(),
}
_TEXT_FAMILY = {
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
    "ministral3": "mistral",
}


def family_name(config: Config) -> str:
    """The family of a text config, without the suffixes of multimodal ones."""
    model_type = str(config.get("model_type", "")).removesuffix("_text")
    return _TEXT_FAMILY.get(model_type, model_type)


def experts_of(config: Config) -> int:
    """Experts of a layer; 0 for a dense model."""
    keys = ("num_experts", "num_local_experts", "n_routed_experts")
    return next((int(config[key]) for key in keys if config.get(key)), 0)


def experts_per_token(config: Config) -> int:
    """Experts that one token passes through; 0 for a dense model."""
    keys = ("num_experts_per_tok", "top_k_experts", "experts_per_token")
    chosen = next((int(config[key]) for key in keys if config.get(key)), 0)
    return chosen if experts_of(config) else 0


def expert_size(config: Config) -> int:
    """Intermediate size of one expert."""
    return int(config.get("moe_intermediate_size") or config["intermediate_size"])


def is_sparse(config: Config, layer: int) -> bool:
    """Whether a layer has experts."""
    if not experts_of(config) or layer in (config.get("mlp_only_layers") or ()):
        return False
    if kinds := config.get("mlp_layer_types"):
        return bool(kinds[layer] == "sparse")
    if layer < int(config.get("first_k_dense_replace") or 0):
        return False
    return not (layer + 1) % int(config.get("decoder_sparse_step") or 1)


def attention(config: Config, prefix: str, full: bool = True) -> list[Linear]:
    """q, k, v and o of one layer. `full` tells layers that attend to everything from windows."""
    if config.get("kv_lora_rank"):
        return _latent_attention(config, prefix)
    family = FAMILIES[family_name(config)]
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads, head_dim = kv_sizes(config, full)
    query, key_value = heads * head_dim, kv_heads * head_dim
    bias = bool(family.bias_key and config.get(family.bias_key))
    qkv_bias = bias or (family.qkv_bias and bool(config.get("qkv_bias", True)))
    gated = family.output_gate and config.get("attn_output_gate", True)
    queries = query * 2 if gated else query
    return [
        Linear(f"{prefix}.q_proj", hidden, queries, qkv_bias),
        Linear(f"{prefix}.k_proj", hidden, key_value, qkv_bias),
        Linear(f"{prefix}.v_proj", hidden, key_value, qkv_bias),
        Linear(f"{prefix}.o_proj", query, hidden, bias),
    ]


def loaded_twice(config: Config) -> int:
    """Elements that vLLM keeps a second time, in 16 bits: MLA's kv_b_proj as W_UK and W_UV."""
    if not config.get("kv_lora_rank"):
        return 0
    expanded = int(config["qk_nope_head_dim"]) + int(config["v_head_dim"])
    heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
    return layers * heads * int(config["kv_lora_rank"]) * expanded


def kv_sizes(config: Config, full: bool = True) -> tuple[int, int]:
    """KV heads and their dimension, which differ between the layers of Gemma 4."""
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    if full and config.get("global_head_dim"):
        head_dim = int(config["global_head_dim"])
        kv_heads = int(config.get("num_global_key_value_heads") or kv_heads)
    return kv_heads, head_dim


def _latent_attention(config: Config, prefix: str) -> list[Linear]:
    """MLA: low-rank q, a latent for keys and values, and what expands it."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    rank, rotary = int(config["kv_lora_rank"]), int(config["qk_rope_head_dim"])
    nope, value = int(config["qk_nope_head_dim"]), int(config["v_head_dim"])
    query_rank = int(config.get("q_lora_rank") or 0)
    query = heads * (nope + rotary)
    queries = (
        [
            Linear(f"{prefix}.q_a_proj", hidden, query_rank),
            Linear(f"{prefix}.q_b_proj", query_rank, query),
        ]
        if query_rank
        else [Linear(f"{prefix}.q_proj", hidden, query)]
    )
    expanded = heads * (nope + value)
    return [
        *queries,
        Linear(f"{prefix}.kv_a_proj_with_mqa", hidden, rank + rotary),
        Linear(f"{prefix}.kv_b_proj", rank, expanded),
        Linear(f"{prefix}.o_proj", heads * value, hidden),
        *_index(config, prefix),
    ]


def _index(config: Config, prefix: str) -> list[Linear]:
    if not config.get("index_topk"):
        return []
    heads, size = int(config["index_n_heads"]), int(config["index_head_dim"])
    hidden, query_rank = int(config["hidden_size"]), int(config["q_lora_rank"])
    return [
        Linear(f"{prefix}.indexer.wq_b", query_rank, heads * size),
        Linear(f"{prefix}.indexer.wk", hidden, size),
        Linear(f"{prefix}.indexer.weights_proj", hidden, heads, quantizable=False),
    ]


def gated(prefix: str, hidden: int, ffn: int, bias: bool = False) -> list[Linear]:
    """gate, up and down of a feed-forward layer."""
    return [
        Linear(f"{prefix}.gate_proj", hidden, ffn, bias),
        Linear(f"{prefix}.up_proj", hidden, ffn, bias),
        Linear(f"{prefix}.down_proj", ffn, hidden, bias),
    ]


def experts(config: Config, prefix: str) -> list[Linear]:
    """Router, experts and shared experts of one layer."""
    hidden, size, number = int(config["hidden_size"]), expert_size(config), experts_of(config)
    bias = family_name(config) == "gpt_oss"
    read = experts_per_token(config)

    def expert(name: str, inputs: int, outputs: int, inner: ExpertSide) -> Linear:
        name = f"{prefix}.experts.0.{name}"
        return Linear(name, inputs, outputs, bias, number, read, expert_intermediate=inner)

    linears = [
        Linear(f"{prefix}.gate", hidden, number, bias, quantizable=False),
        expert("gate_proj", hidden, size, "outputs"),
        expert("up_proj", hidden, size, "outputs"),
        expert("down_proj", size, hidden, "inputs"),
    ]
    if one := config.get("shared_expert_intermediate_size"):
        linears.append(Linear(f"{prefix}.shared_expert_gate", hidden, 1, quantizable=False))
        linears += gated(f"{prefix}.shared_expert", hidden, int(one))
    if several := config.get("n_shared_experts"):
        linears += gated(f"{prefix}.shared_experts", hidden, int(several) * size)
    return linears


def feed_forward(config: Config, prefix: str, layer: int) -> list[Linear]:
    """The experts or the dense layer after attention."""
    family = FAMILIES[family_name(config)]
    if is_sparse(config, layer):
        return experts(config, f"{prefix}.{family.experts_name}".removesuffix("."))
    hidden, ffn = int(config["hidden_size"]), int(config["intermediate_size"])
    return gated(f"{prefix}.mlp", hidden, ffn, bool(config.get("mlp_bias")))


def drafts(config: Config) -> Iterator[Linear]:
    """The modules of multi-token prediction: a projection and a layer each.

    They share embedding and output layer with the model.
    """
    hidden = int(config["hidden_size"])
    for module in range(draft_modules(config)):
        prefix = f"mtp.layers.{module}"
        linears = [Linear(f"{prefix}.eh_proj", 2 * hidden, hidden)]
        linears += attention(config, f"{prefix}.self_attn")
        if experts_of(config):
            linears += experts(config, f"{prefix}.mlp")
        else:
            linears += gated(f"{prefix}.mlp", hidden, int(config["intermediate_size"]))
        yield from (replace(linear, drafts=True) for linear in linears)

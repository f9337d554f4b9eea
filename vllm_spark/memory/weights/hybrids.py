"""The matrices of layers that are not plain attention: Gated DeltaNet, Mamba-2, DeepSeek V4's.

Sources: vLLM's `gdn/qwen_gdn_linear_attn.py`, `mamba/mamba_mixer2.py`, `models/nemotron_h.py`,
`models/deepseek_v4/{attention,compressor}.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vllm_spark.memory.kv.cached_layers import LayerKind, draft_modules
from vllm_spark.memory.kv.deepseek_v4 import FINE
from vllm_spark.memory.weights.families import attention, experts_of, experts_per_token, gated
from vllm_spark.memory.weights.linears import Linear

Config = Mapping[str, Any]


def gated_delta_net(config: Config, prefix: str) -> list[Linear]:
    """One Gated DeltaNet layer of Qwen3-Next, 3.5 and later."""
    hidden = int(config["hidden_size"])
    keys = int(config["linear_num_key_heads"]) * int(config["linear_key_head_dim"])
    value_heads = int(config["linear_num_value_heads"])
    value_dim = int(config["linear_value_head_dim"])
    values = value_heads * value_dim
    channels = 2 * keys + values
    kernel = int(config["linear_conv_kernel_dim"])
    return [
        Linear(f"{prefix}.in_proj_qkv", hidden, channels),
        Linear(f"{prefix}.in_proj_z", hidden, values),
        Linear(f"{prefix}.in_proj_ba", hidden, 2 * value_heads, quantizable=False),
        Linear(f"{prefix}.conv1d", kernel, channels, quantizable=False),
        Linear(f"{prefix}.out_proj", values, hidden),
        _in_32_bits(f"{prefix}.A_log", 1, value_heads),
        Linear(f"{prefix}.dt_bias", 1, value_heads, quantizable=False),
        Linear(f"{prefix}.norm", 1, value_dim, quantizable=False),
    ]


def nemotron_h(config: Config, kinds: list[LayerKind]) -> Iterator[Linear]:
    """All layers of a Nemotron-H model; each is one mixer."""
    names = config.get("layers_block_type") or config["hybrid_override_pattern"]
    for layer, (kind, name) in enumerate(zip(kinds, names, strict=False)):
        prefix = f"backbone.layers.{layer}.mixer"
        if kind == "mamba2":
            yield from _mamba2(config, prefix)
        elif kind == "full":
            yield from attention(config, prefix)
        elif name in ("moe", "E"):
            yield from _two_matrix_experts(config, prefix)
        else:
            yield from _two_matrices(config, prefix, int(config["intermediate_size"]))
    pattern = config.get("mtp_layers_block_type") or config.get("mtp_hybrid_override_pattern")
    for module in range(draft_modules(config) if pattern else 0):
        prefix, hidden = f"mtp.layers.{module}", int(config["hidden_size"])
        linears = [Linear(f"{prefix}.eh_proj", 2 * hidden, hidden)]
        for name in pattern or ():
            mixer = f"{prefix}.mixer"
            attends = name in ("attention", "*")
            linears += attention(config, mixer) if attends else _two_matrix_experts(config, mixer)
        yield from (replace(linear, drafts=True) for linear in linears)


def _in_32_bits(name: str, inputs: int, outputs: int, bias: bool = False) -> Linear:
    return Linear(name, inputs, outputs, bias, quantizable=False, element_bytes=4)


def _mamba2(config: Config, prefix: str) -> list[Linear]:
    hidden, heads = int(config["hidden_size"]), int(config["mamba_num_heads"])
    inner = heads * int(config["mamba_head_dim"])
    groups = 2 * int(config["n_groups"]) * int(config["ssm_state_size"])
    channels = inner + groups
    kernel, bias = int(config["conv_kernel"]), bool(config.get("use_conv_bias", True))
    return [
        Linear(f"{prefix}.in_proj", hidden, inner + channels + heads, bool(config.get("use_bias"))),
        Linear(f"{prefix}.out_proj", inner, hidden, bool(config.get("use_bias"))),
        Linear(f"{prefix}.conv1d", kernel, channels, bias, quantizable=False),
        _in_32_bits(f"{prefix}.A", 1, heads),
        _in_32_bits(f"{prefix}.D", 1, heads),
        _in_32_bits(f"{prefix}.dt_bias", 1, heads),
        Linear(f"{prefix}.norm", 1, inner, quantizable=False),
    ]


def _two_matrix_experts(config: Config, prefix: str) -> list[Linear]:
    """Router in 32 bits, experts of two matrices, perhaps in a smaller latent space."""
    hidden, number = int(config["hidden_size"]), experts_of(config)
    latent = int(config.get("moe_latent_size") or 0)
    width, size = latent or hidden, int(config["moe_intermediate_size"])
    shared = int(config["moe_shared_expert_intermediate_size"]) * int(config["n_shared_experts"])
    read = experts_per_token(config)
    linears = [
        _in_32_bits(f"{prefix}.gate", hidden, number, bias=True),
        Linear(f"{prefix}.experts.0.up_proj", width, size, copies=number, copies_read=read),
        Linear(f"{prefix}.experts.0.down_proj", size, width, copies=number, copies_read=read),
        Linear(f"{prefix}.shared_experts.up_proj", hidden, shared),
        Linear(f"{prefix}.shared_experts.down_proj", shared, hidden),
    ]
    if latent:
        linears += [
            Linear(f"{prefix}.fc1_latent_proj", hidden, latent),
            Linear(f"{prefix}.fc2_latent_proj", latent, hidden),
        ]
    return linears


def _two_matrices(config: Config, prefix: str, ffn: int) -> list[Linear]:
    hidden, bias = int(config["hidden_size"]), bool(config.get("mlp_bias"))
    return [
        Linear(f"{prefix}.up_proj", hidden, ffn, bias),
        Linear(f"{prefix}.down_proj", ffn, hidden, bias),
    ]


def deepseek_v4(config: Config) -> Iterator[Linear]:
    """All layers of DeepSeek V4: low-rank attention over compressed latents, and experts."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head_dim, rank = int(config["head_dim"]), int(config["q_lora_rank"])
    groups, output_rank = int(config["o_groups"]), int(config["o_lora_rank"])
    size, number = int(config["moe_intermediate_size"]), experts_of(config)
    read = experts_per_token(config)
    streams = int(config["hc_mult"])
    ratios = config["compress_ratios"]
    for layer in range(int(config["num_hidden_layers"])):
        attn, ffn = f"layers.{layer}.attn", f"layers.{layer}.ffn"
        yield Linear(f"{attn}.wqa_wkv", hidden, rank + head_dim, replicated=True)
        yield Linear(f"{attn}.wq_b", rank, heads * head_dim)
        yield Linear(f"{attn}.wo_a", heads * head_dim // groups, groups * output_rank)
        yield Linear(f"{attn}.wo_b", groups * output_rank, hidden)
        if ratio := int(ratios[layer]):
            yield from _compressor(config, attn, ratio)
        mixing = (2 + streams) * streams
        yield replace(_in_32_bits(f"layers.{layer}.hc", streams * hidden, 2 * mixing),
                      replicated=True)  # fmt: skip
        yield Linear(f"{ffn}.gate", hidden, number, quantizable=False, replicated=True)
        for name, inputs, outputs in (("w1", hidden, size), ("w3", hidden, size)):
            yield Linear(f"{ffn}.experts.0.{name}", inputs, outputs, copies=number,
                         copies_read=read, expert_intermediate="outputs")  # fmt: skip
        yield Linear(f"{ffn}.experts.0.w2", size, hidden, copies=number, copies_read=read,
                     expert_intermediate="inputs")  # fmt: skip
        yield from gated(f"{ffn}.shared_experts", hidden, size * int(config["n_shared_experts"]))


def _compressor(config: Config, attn: str, ratio: int) -> Iterator[Linear]:
    """What makes a latent of several tokens; where it is of few, an index is kept besides."""
    hidden, head_dim = int(config["hidden_size"]), int(config["head_dim"])
    overlap = 2 if ratio == FINE else 1
    whole = {f"{attn}.compressor": head_dim}
    if ratio == FINE:
        index_dim = int(config["index_head_dim"])
        whole[f"{attn}.indexer.compressor"] = index_dim
        heads = int(config["index_n_heads"])
        yield Linear(f"{attn}.indexer.wq_b", int(config["q_lora_rank"]), heads * index_dim,
                     replicated=True)  # fmt: skip
        yield Linear(f"{attn}.indexer.weights_proj", hidden, heads, quantizable=False,
                     replicated=True)  # fmt: skip
    for name, size in whole.items():
        yield Linear(name, hidden, 2 * overlap * size, quantizable=False, replicated=True)

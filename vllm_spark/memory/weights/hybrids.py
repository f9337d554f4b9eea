"""The matrices of layers that are no attention: Gated DeltaNet, Mamba-2, and Nemotron's experts.

Sources: vLLM's `gdn/qwen_gdn_linear_attn.py`, `mamba/mamba_mixer2.py`, `models/nemotron_h.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vllm_spark.memory.kv.cached_layers import LayerKind, draft_modules
from vllm_spark.memory.weights.families import attention, experts_of, experts_per_token
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

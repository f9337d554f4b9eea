"""Reads the `config.json` that every Hugging Face checkpoint carries into a `ModelShape`.

Families are listed by name, because their code fixes biases and
norms that no config.json mentions: a family that is not listed is refused rather than guessed.
Parameter counts agree to the last digit with those that the Hub publishes (tests/unit/test_shape).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vllm_spark.errors import ConfigError
from vllm_spark.memory.quantization import quantization_of, stores_fp8_kv_cache
from vllm_spark.memory.shape import Linear, ModelShape
from vllm_spark.memory.vision import vision_parameters
from vllm_spark.problems import Problem, Unmodelled


@dataclass(frozen=True)
class Family:
    """What a model family fixes in code, so that its config.json does not say it."""

    qkv_bias: bool = False
    bias_key: str = ""  # key that puts a bias on q, k, v and o
    query_key_norm: bool = False
    tied_by_default: bool = False


FAMILIES = {
    "llama": Family(bias_key="attention_bias"),
    "smollm3": Family(bias_key="attention_bias", tied_by_default=True),
    "granite": Family(bias_key="attention_bias"),
    "mistral": Family(),
    "mixtral": Family(),
    "phi3": Family(),
    "gemma": Family(tied_by_default=True),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family(qkv_bias=True),
    "qwen3": Family(bias_key="attention_bias", query_key_norm=True),
    "qwen3_moe": Family(bias_key="attention_bias", query_key_norm=True),
}
_TEXT_FAMILY = {
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
}
_MIXED_LAYER_KEYS = (
    "ssm_cfg", "mamba_d_state", "mamba_d_ssm", "ssm_state_size", "layers_block_type",
    "hybrid_override_pattern", "full_attention_interval", "attn_layer_period", "attn_type_list",
    "linear_num_key_heads", "block_types",
)  # fmt: skip


def shape_of(config: Mapping[str, Any]) -> ModelShape | Unmodelled:
    """Read the content of a `config.json`. ConfigError if it lacks what every such file has."""
    text: Mapping[str, Any] = config.get("text_config") or config
    reason = _why_not_modelled(config, text)
    if reason:
        return Unmodelled(reason)
    quantization_config = _quantization_config(config, text)
    quantization = quantization_of(quantization_config) if quantization_config else None
    if isinstance(quantization, Unmodelled):
        return quantization
    numbers = _Numbers(text)
    hidden = numbers.required("hidden_size")
    heads = numbers.required("num_attention_heads")
    layers = numbers.required("num_hidden_layers")
    vocabulary = numbers.required("vocab_size")
    positions = numbers.required("max_position_embeddings")
    experts = numbers.optional("num_experts", numbers.optional("num_local_experts", 0))
    mixtral = _family(text) == "mixtral"
    size_key = "moe_intermediate_size" if experts and not mixtral else "intermediate_size"
    ffn = numbers.required(size_key)
    if experts:
        numbers.required("num_experts_per_tok")
    numbers.raise_if_missing()

    family = FAMILIES[_family(text)]
    kv_heads = numbers.optional("num_key_value_heads", heads)
    head_dim = numbers.optional("head_dim", hidden // heads)
    linears = tuple(
        linear
        for layer in range(layers)
        for linear in (
            *_attention(text, family, layer, heads * head_dim, kv_heads * head_dim),
            *(_experts(text, layer, experts, ffn) or _dense(text, layer)),
        )
    )
    norms = layers * (2 * hidden + 2 * head_dim * family.query_key_norm)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return ModelShape(
        family=_family(text),
        layers=layers,
        hidden_size=hidden,
        query_size=heads * head_dim,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_size=ffn,
        experts_per_token=numbers.optional("num_experts_per_tok", 0) if experts else 0,
        vocabulary=vocabulary,
        positions=_scaled(positions, text),
        tied_embeddings=family.tied_by_default if tied is None else bool(tied),
        linears=linears,
        norm_parameters=norms + hidden,
        vision_parameters=vision_parameters(config),
        quantization=quantization,
        fp8_kv_cache=stores_fp8_kv_cache(quantization_config),
    )


def read_config(path: Path) -> ModelShape | Unmodelled:
    """The shape in a `config.json`, or in one of our `models/*.yaml`. ConfigError if unreadable."""
    fix = "give the path of a model's config.json, as its page on the Hub lists it"
    try:
        text = path.read_text()
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise ConfigError([Problem(str(path), what, fix)]) from error
    except (ValueError, yaml.YAMLError) as error:
        what = f"is not valid {path.suffix.removeprefix('.').upper() or 'JSON'}: {error}"
        raise ConfigError([Problem(str(path), what, fix)]) from error
    config = content.get("config", content) if isinstance(content, dict) else content
    if not isinstance(config, dict):
        what = f"holds a {type(config).__name__}, not an object with the model's sizes"
        raise ConfigError([Problem(str(path), what, fix)])
    try:
        return shape_of(_with_quantization_beside(config, path))
    except (AttributeError, KeyError, TypeError) as error:
        what = f"is not formed like a model's config.json ({type(error).__name__}: {error})"
        fix = "use the file as its page on the Hub has it, unedited"
        raise ConfigError([Problem(str(path), what, fix)]) from error


def _with_quantization_beside(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """ModelOpt wrote its scheme into a file of its own before 0.31, and vLLM reads it there."""
    if "quantization_config" in config:
        return config
    try:
        scheme = json.loads(path.with_name("hf_quant_config.json").read_text())
    except (OSError, ValueError):
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt", **scheme}}


def _family(text: Mapping[str, Any]) -> str:
    model_type = str(text.get("model_type", "")).removesuffix("_text")
    return _TEXT_FAMILY.get(model_type, model_type)


def _quantization_config(config: Mapping[str, Any], text: Mapping[str, Any]) -> Mapping[str, Any]:
    for owner in (config, text):
        for key in ("quantization_config", "compression_config"):
            if owner.get(key):
                found: Mapping[str, Any] = owner[key]
                return found
    return {}


def _why_not_modelled(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    if "model_type" not in text:
        what = "is missing, so the model's family is not known"
        fix = "use the model's whole config.json, not a part of it"
        raise ConfigError([Problem("config.json: model_type", what, fix)])
    if config.get("is_encoder_decoder"):
        return "encoder-decoder models keep a second, cross-attention cache"
    if text.get("kv_lora_rank"):
        return "multi-head latent attention (MLA) caches a compressed latent, not keys and values"
    kinds = sorted(set(text.get("layer_types") or ()) - {"full_attention"})
    mixed = [key for key in _MIXED_LAYER_KEYS if text.get(key)]
    if mixed or any("linear" in kind or "mamba" in kind for kind in kinds):
        return f"a hybrid of attention and state-space layers ({', '.join(kinds or mixed)})"
    if kinds:
        return f"layers whose cache stops growing (sliding window or chunks: {', '.join(kinds)})"
    window = text.get("sliding_window")
    # A window as wide as the longest sequence never closes: Phi-3-128k and Phi-4-mini have one.
    narrow = window and window < text.get("max_position_embeddings", math.inf)
    if narrow and text.get("use_sliding_window", True):
        return f"sliding-window attention over {window:,} tokens: the cache stops growing there"
    family = _family(text)
    if family not in FAMILIES:
        return f"the layers of model_type {family!r} are not known to this planner"
    return None


def _scaled(positions: int, text: Mapping[str, Any]) -> int:
    """Positions after rotary scaling, as vLLM derives its longest max-model-len."""
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "yarn":
        return int(rope.get("original_max_position_embeddings", positions) * rope.get("factor", 1))
    return int(positions * rope.get("factor", 1)) if kind in ("linear", "dynamic") else positions


def _attention(
    text: Mapping[str, Any], family: Family, layer: int, query: int, key_value: int
) -> list[Linear]:
    hidden = int(text["hidden_size"])
    bias = bool(family.bias_key and text.get(family.bias_key))
    qkv_bias = bias or (family.qkv_bias and bool(text.get("qkv_bias", True)))
    prefix = f"model.layers.{layer}.self_attn"
    return [
        Linear(f"{prefix}.q_proj", hidden, query, qkv_bias),
        Linear(f"{prefix}.k_proj", hidden, key_value, qkv_bias),
        Linear(f"{prefix}.v_proj", hidden, key_value, qkv_bias),
        Linear(f"{prefix}.o_proj", query, hidden, bias),
    ]


def _gated(
    prefix: str, hidden: int, ffn: int, bias: bool = False, copies: int = 1, read: int = 1
) -> list[Linear]:
    return [
        Linear(f"{prefix}.gate_proj", hidden, ffn, bias, copies, read),
        Linear(f"{prefix}.up_proj", hidden, ffn, bias, copies, read),
        Linear(f"{prefix}.down_proj", ffn, hidden, bias, copies, read),
    ]


def _dense(text: Mapping[str, Any], layer: int) -> list[Linear]:
    prefix = f"model.layers.{layer}.mlp"
    bias = bool(text.get("mlp_bias"))
    return _gated(prefix, int(text["hidden_size"]), int(text["intermediate_size"]), bias)


def _experts(text: Mapping[str, Any], layer: int, experts: int, ffn: int) -> list[Linear]:
    """Router, experts and shared expert of one layer; empty if the layer is a dense one."""
    step = text.get("decoder_sparse_step") or 1
    if not experts or layer in (text.get("mlp_only_layers") or ()) or (layer + 1) % step:
        return []
    hidden, prefix = int(text["hidden_size"]), f"model.layers.{layer}.mlp"
    chosen = int(text["num_experts_per_tok"])
    linears = [
        Linear(f"{prefix}.gate", hidden, experts, quantizable=False),
        *_gated(f"{prefix}.experts.0", hidden, ffn, copies=experts, read=chosen),
    ]
    shared = text.get("shared_expert_intermediate_size")
    if shared:
        linears.append(Linear(f"{prefix}.shared_expert_gate", hidden, 1, quantizable=False))
        linears += _gated(f"{prefix}.shared_expert", hidden, int(shared))
    return linears


class _Numbers:
    """Reads sizes and collects what is missing, so that all of it is said at once."""

    def __init__(self, text: Mapping[str, Any]) -> None:
        self._text = text
        self._problems: list[Problem] = []

    def required(self, key: str) -> int:
        value = self._text.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        what = "is missing" if value is None else f"is {value!r}, not a positive whole number"
        fix = "use the model's whole config.json, unedited"
        self._problems.append(Problem(f"config.json: {key}", what, fix))
        return 1

    def optional(self, key: str, default: int) -> int:
        return self.required(key) if self._text.get(key) else default

    def raise_if_missing(self) -> None:
        if self._problems:
            raise ConfigError(self._problems)

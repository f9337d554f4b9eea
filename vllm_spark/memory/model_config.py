"""Reads the `config.json` that every Hugging Face checkpoint carries into a `ModelShape`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vllm_spark.errors import ConfigError
from vllm_spark.memory.kv.cached_layers import (
    LayerKind,
    cached_layers,
    layer_kinds,
)
from vllm_spark.memory.quantization import (
    Quantization,
    quantization_of,
    stores_fp8_kv_cache,
    with_fp4_experts,
)
from vllm_spark.memory.shape import ModelShape
from vllm_spark.memory.weights import families
from vllm_spark.memory.weights.families import FAMILIES, family_name
from vllm_spark.memory.weights.hybrids import deepseek_v4, gated_delta_net, nemotron_h
from vllm_spark.memory.weights.linears import Linear
from vllm_spark.memory.weights.plausible import MOST_LAYERS, check_numbers, check_shape, is_size
from vllm_spark.memory.weights.stored import StoredWeights, stored_weights
from vllm_spark.memory.weights.vision import vision_parameters
from vllm_spark.problems import Problem, Unmodelled

CONFIG_FILE = "config.json"
MODELOPT_FILE = "hf_quant_config.json"
ADVICE = "`vllm-spark model ID` reads its bytes from the checkpoint"


_POOLING_NAME = re.compile(r"(?i)embed|rerank|(?:^|[/-])(?:bge|gte|e5)-")
_POOLING_ARCHITECTURE = re.compile("ForSequenceClassification|EmbeddingModel|RewardModel")


def shape_of(
    config: Mapping[str, Any], stored: StoredWeights | None = None, name: str = ""
) -> ModelShape | Unmodelled:
    """Read the content of a `config.json`. ConfigError if it lacks what every such file has.

    `stored` are the bytes of the checkpoint where they are known. `name` is the model's id or the
    name of its folder, which tells models for embeddings: their config says nothing of it.
    """
    text = _text_config(config)
    reason = _why_not_modelled(config, text, stored)
    if reason:
        return Unmodelled(reason)
    quantization_config = _quantization_config(config, text)
    quantization = quantization_of(quantization_config) if quantization_config else None
    if isinstance(quantization, Quantization) and text.get("expert_dtype") == "fp4":
        quantization = with_fp4_experts(quantization)
    if isinstance(quantization, Unmodelled):
        if stored is None:
            return Unmodelled(f"{quantization.reason}; {ADVICE}")
        method = str(quantization_config.get("quant_method") or "stored")
        quantization = Quantization("as stored", 0, method=method)
    check_numbers(text)
    kinds = layer_kinds(text)
    cached = cached_layers(text)
    if isinstance(kinds, Unmodelled):
        return kinds
    if isinstance(cached, Unmodelled):
        return cached
    known = family_name(text) in FAMILIES
    kv_heads, head_dim = families.kv_sizes(text, full=False)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    tied_by_default = known and FAMILIES[family_name(text)].tied_by_default
    shape = ModelShape(
        family=family_name(text),
        layers=int(text["num_hidden_layers"]),
        hidden_size=int(text["hidden_size"]),
        query_size=int(text["num_attention_heads"]) * head_dim,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_size=_ffn_size(text),
        experts=families.experts_of(text),
        experts_per_token=families.experts_per_token(text),
        vocabulary=int(text["vocab_size"]),
        positions=_scaled(int(text["max_position_embeddings"]), text),
        tied_embeddings=tied_by_default if tied is None else bool(tied),
        linears=tuple(_linears(text, kinds)) if known else (),
        norm_parameters=_norms(text, kinds) if known else 0,
        rotary_elements=_rotary_elements(text, kinds),
        vision_parameters=vision_parameters(config),
        quantization=quantization,
        fp8_kv_cache=stores_fp8_kv_cache(quantization_config),
        cached=cached,
        doubled_elements=families.loaded_twice(text),
        stored=stored,
        pooling=bool(_POOLING_NAME.search(name))
        or any(map(_POOLING_ARCHITECTURE.search, config.get("architectures") or ())),
    )
    check_shape(shape)
    return shape


def read_config(path: Path) -> ModelShape | Unmodelled:
    """The shape in a `config.json`, or in one of our `models/*.yaml`. ConfigError if unreadable.

    `path` may be the folder of a checkpoint.
    """
    path = path / CONFIG_FILE if path.is_dir() else path
    fix = "give the path of a model's config.json, as its page on the Hub lists it"
    try:
        text = path.read_text()
        content = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise ConfigError([Problem(str(path), what, fix)]) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        what = f"is not valid {path.suffix.removeprefix('.').upper() or 'JSON'}: {error}"
        raise ConfigError([Problem(str(path), what, fix)]) from error
    stored = None
    if isinstance(content, dict) and path.suffix == ".yaml" and "weights" in content:
        stored = stored_weights(content["weights"], str(path))
    name = str(content.get("id", "")) if isinstance(content, dict) else ""
    config = content.get("config", content) if isinstance(content, dict) else content
    if not isinstance(config, dict):
        what = f"holds a {type(config).__name__}, not an object with the model's sizes"
        raise ConfigError([Problem(str(path), what, fix)])
    try:
        return shape_of(_with_quantization_beside(config, path), stored, name or _folder(path))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        what = f"is not formed like a model's config.json ({type(error).__name__}: {error})"
        fix = "use the file as its page on the Hub has it, unedited"
        raise ConfigError([Problem(str(path), what, fix)]) from error


def _folder(path: Path) -> str:
    """The name of a checkpoint's folder; in the hub's cache it is two levels above a snapshot."""
    folder = path.absolute().parent
    return folder.parents[1].name if folder.parent.name == "snapshots" else folder.name


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about the language model; MiniMax M3's does not repeat the model's type."""
    text = config.get("text_config")
    if not text:
        return config
    if "model_type" in text or "model_type" not in config:
        result: Mapping[str, Any] = text
        return result
    return {"model_type": config["model_type"], **text}


def _with_quantization_beside(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """ModelOpt wrote its scheme into a file of its own before 0.31, and vLLM reads it there."""
    if "quantization_config" in config:
        return config
    try:
        scheme = json.loads(path.with_name(MODELOPT_FILE).read_text())
    except (OSError, ValueError):
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt", **scheme}}


def _quantization_config(config: Mapping[str, Any], text: Mapping[str, Any]) -> Mapping[str, Any]:
    for owner in (config, text):
        for key in ("quantization_config", "compression_config"):
            if owner.get(key):
                found: Mapping[str, Any] = owner[key]
                return found
    return {}


def _why_not_modelled(
    config: Mapping[str, Any], text: Mapping[str, Any], stored: StoredWeights | None
) -> str | None:
    if "model_type" not in text:
        what = "is missing, so the model's family is not known"
        fix = "use the model's whole config.json, not a part of it"
        raise ConfigError([Problem("config.json: model_type", what, fix)])
    if config.get("is_encoder_decoder"):
        return "encoder-decoder models keep a second, cross-attention cache"
    kinds = layer_kinds(text) if is_size(text.get("num_hidden_layers"), MOST_LAYERS) else []
    if isinstance(kinds, Unmodelled):
        return kinds.reason
    family = family_name(text)
    if family not in FAMILIES and stored is None:
        return f"the layers of model_type {family!r} are not known to this planner; {ADVICE}"
    return None


def _ffn_size(text: Mapping[str, Any]) -> int:
    if families.experts_of(text):
        return families.expert_size(text)
    return int(text["intermediate_size"])


def _scaled(positions: int, text: Mapping[str, Any]) -> int:
    """Positions after rotary scaling, as vLLM derives its longest max-model-len."""
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings", positions)
        return int(original * rope.get("factor", 1))
    return int(positions * rope.get("factor", 1)) if kind in ("linear", "dynamic") else positions


def _linears(text: Mapping[str, Any], kinds: list[LayerKind]) -> list[Linear]:
    if family_name(text) == "nemotron_h":
        return list(nemotron_h(text, kinds))
    if family_name(text) == "deepseek_v4":
        return list(deepseek_v4(text))
    linears: list[Linear] = []
    for layer, kind in enumerate(kinds):
        prefix = f"model.layers.{layer}"
        if kind == "gdn":
            linears += gated_delta_net(text, f"{prefix}.linear_attn")
        else:
            linears += families.attention(text, f"{prefix}.self_attn", full=kind == "full")
        linears += families.feed_forward(text, prefix, layer)
        if text.get("enable_moe_block"):  # Gemma 4 has a dense layer beside its experts
            ffn = int(text["intermediate_size"])
            linears += families.gated(f"{prefix}.mlp", int(text["hidden_size"]), ffn)
    return [*linears, *families.drafts(text)]


def _norms(text: Mapping[str, Any], kinds: list[LayerKind]) -> int:
    """Elements of all norms of the language model."""
    family = FAMILIES[family_name(text)]
    hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    total = hidden
    for kind in kinds:
        total += family.norms_per_layer * hidden
        if text.get("enable_moe_block"):
            total += 3 * hidden + families.experts_of(text)
        if kind in ("full", "window", "chunk") and family.query_key_norm:
            kv_heads, head_dim = families.kv_sizes(text, full=kind == "full")
            total += (heads + kv_heads if family.norm_over_heads else 2) * head_dim
        if text.get("kv_lora_rank"):
            total += int(text["kv_lora_rank"]) + int(text.get("q_lora_rank") or 0)
    return total + (len(kinds) * heads if family_name(text) == "gpt_oss" else 0)  # its sinks


def _rotary_elements(text: Mapping[str, Any], kinds: list[LayerKind]) -> int:
    """Elements of the tables of sines and cosines: one for each kind of rotary embedding."""
    if family_name(text) == "nemotron_h":
        return 0
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    positions = _scaled(int(text["max_position_embeddings"]), text)
    if "mrope_section" in rope:
        positions *= 4  # vLLM's MRotaryEmbedding makes room for the positions of videos
    partial = text.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0))
    widths = set()
    for kind in {"full" if kind == "gdn" else kind for kind in kinds} - {"none", "mamba2"}:
        head_dim = families.kv_sizes(text, full=kind == "full")[1]
        head_dim = int(text.get("qk_rope_head_dim") or head_dim)
        factor = 1.0 if isinstance(rope.get("full_attention"), Mapping) else float(partial or 1)
        widths.add(int(head_dim * factor))
    tables = 2 if "compress_rope_theta" in text else 1
    return tables * sum(positions * width for width in widths)

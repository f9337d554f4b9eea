"""Which parts of a model the engine flags load, and which layers they add: drafts and adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_spark.flags.checks import integer
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.memory.shape import Loaded, ModelShape
from vllm_spark.memory.weights.linears import MARLIN, PADDINGS

_POOLING_TASKS = ("embed", "embedding", "classify", "score", "reward", "token_embed", "rerank")
_WITHOUT_MODEL = ("ngram", "ngram_gpu", "suffix")
"""Methods of speculative decoding that guess from the text itself and load nothing."""

_MODULES_IN_CHECKPOINT = ("mtp", "deepseek_mtp", "qwen3_next_mtp", "qwen3_5_mtp", "glm4_moe_mtp",
                          "nemotron_h_mtp", "mimo_mtp", "ernie_mtp", "longcat_flash_mtp",
                          "step3p5_mtp", "gemma4_mtp")  # fmt: skip
_DEFAULT_RANK, _DEFAULT_ADAPTERS = 16, 1
_TARGETS_OF_ADAPTERS = (".gate", "in_proj_ba", "conv1d", "A_log", "dt_bias", ".norm", ".A", ".D")


@dataclass(frozen=True)
class Speculation:
    """What `speculative-config` asks for."""

    method: str = ""
    tokens: int = 0
    model: str | None = None
    """The draft model's id; None where the checkpoint brings the drafting layers itself."""

    @property
    def uses_checkpoint(self) -> bool:
        """Whether the modules of multi-token prediction in the checkpoint are loaded."""
        return self.model is None and self.method in _MODULES_IN_CHECKPOINT

    @property
    def needs_model(self) -> bool:
        """Whether a draft model is loaded besides the checkpoint."""
        return bool(self.method) and not self.uses_checkpoint and self.method not in _WITHOUT_MODEL


def speculation_of(flags: Mapping[str, Any]) -> Speculation:
    """Read `speculative-config`, whether it is an object, its text, or dotted flags."""
    config = dict(_object(flags.get("speculative-config")))
    for name, value in flags.items():
        flag, _, key = name.partition(".")
        if flag == "speculative-config" and key:
            config[key.replace("-", "_")] = value
    if not config:
        return Speculation()
    model = config.get("model")
    method = str(config.get("method") or ("draft_model" if model else "")).lower()
    if method in _MODULES_IN_CHECKPOINT:
        model = None
    return Speculation(method, integer(config.get("num_speculative_tokens")) or 0, model)


def loaded_parts(flags: EngineFlags, shape: ModelShape, speculation: Speculation) -> Loaded:
    """Which parts of the model a server with these flags loads."""
    text_only = bool(flags.get("language-model-only"))
    per_prompt = _object(flags.get("limit-mm-per-prompt"))
    encoder_unused = bool(per_prompt) and {"image", "video"} <= per_prompt.keys()
    encoder_unused = encoder_unused and not any(map(_allowed, per_prompt.values()))
    backend = str(flags.get("moe-backend") or "marlin")
    return Loaded(
        output_layer=not is_pooling(flags, shape),
        vision=not text_only and not encoder_unused,
        drafts=speculation.uses_checkpoint,
        padding=PADDINGS.get(backend, MARLIN),
    )


def is_pooling(flags: EngineFlags, shape: ModelShape) -> bool:
    """Whether the server gives embeddings or scores, so that vLLM drops the output layer."""
    runner, convert = flags.get("runner"), flags.get("convert")
    if runner == "generate":
        return False
    if runner == "pooling" or flags.get("task") in _POOLING_TASKS:
        return True
    return convert in ("embed", "classify", "reward") or shape.pooling


def adapter_bytes(flags: EngineFlags, shape: ModelShape, tensor_parallel: int) -> float:
    """Bytes that vLLM reserves for LoRA adapters: two thin matrices for each slot and layer.

    Source: `LoRALayer.create_lora_weights` in vLLM. For experts it reserves them for each one.
    """
    if not flags.get("enable-lora"):
        return 0.0
    slots = integer(flags.get("max-loras")) or _DEFAULT_ADAPTERS
    rank = integer(flags.get("max-lora-rank")) or _DEFAULT_RANK
    elements = sum(
        linear.copies * (linear.inputs + linear.outputs)
        for linear in shape.linears
        if not linear.drafts and not linear.name.endswith(_TARGETS_OF_ADAPTERS)
    )
    return slots * rank * elements * 2 / tensor_parallel


def _object(value: object) -> Mapping[str, Any]:
    """A flag's JSON object; an empty one if it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _allowed(limit: object) -> bool:
    """Whether a limit of `limit-mm-per-prompt`, a number or an object with a count, allows any."""
    return bool(limit.get("count", 1)) if isinstance(limit, Mapping) else bool(limit)

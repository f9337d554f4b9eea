"""Engine flags that a model cannot take, whatever the memory."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vllm_spark.flags.checks import integer
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.memory.quantization import Quantization
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Problem

_NEVER_MIXED = frozenset({"awq", "compressed-tensors", "fp8", "gptq"})


def check_for_model(
    flags: EngineFlags, shape: ModelShape, environment: Mapping[str, str]
) -> list[Problem]:
    """The flags that the model cannot take, each with a fix."""
    return check_length(flags, shape.positions, environment) + check_quantization(
        flags, shape.quantization
    )


def check_length(
    flags: EngineFlags, max_positions: int, environment: Mapping[str, str]
) -> list[Problem]:
    """An error if max-model-len is beyond the model's positions and nothing stretches them.

    `max_positions` is max_position_embeddings of the model's config.json, in tokens. Rope scaling
    stretches them, and VLLM_ALLOW_LONG_MAX_MODEL_LEN in the container's environment lifts the rule.
    """
    allowed = environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "").strip().lower() in ("1", "true")
    line = flags.line("max-model-len")
    length = integer(line.value) if line is not None else None
    if line is None or length is None or length <= max_positions or allowed or _stretched(flags):
        return []
    return [
        Problem(
            line.where,
            f"{length:,} tokens are more than the model's {max_positions:,} positions",
            f"set {line.written} to at most {max_positions}, or stretch the positions with "
            "hf-overrides as the model's card says",
        )
    ]


def check_quantization(flags: EngineFlags, checkpoint: Quantization | None) -> list[Problem]:
    """An error if `quantization` names another method than the checkpoint's `quant_method`.

    vLLM reads some methods with the code of others; these it never does (_verify_quantization).
    """
    stored = checkpoint.method if checkpoint else None
    line = flags.line("quantization")
    if line is None or not isinstance(line.value, str):
        return []
    if line.value == stored or not {line.value, stored} <= _NEVER_MIXED:
        return []
    return [
        Problem(
            line.where,
            f"the checkpoint is quantised with {stored}, and vLLM reads it with no other "
            f"method, so not with {line.value!r}",
            "remove it; vLLM takes the checkpoint's own",
        )
    ]


def _stretched(flags: EngineFlags) -> bool:
    """Whether a flag changes how the model counts positions: rope parameters or their number."""
    return any(
        re.search("rope|position|max_model_len", f"{line.name}={line.value}")
        for line in flags.lines
        if line.name.split(".")[0] in ("hf-overrides", "rope-scaling", "rope-theta")
    )

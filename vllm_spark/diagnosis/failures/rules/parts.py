"""Faults inside a part of vLLM: the traceback names the part, and the part names the setting.

A bare AssertionError or KeyError says nothing by itself. Which file raised it does: each part below
serves a feature that a setting turns off or replaces, which is what helps until a release corrects
the fault.
"""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

_INNERMOST = 3  # frames that show where the error comes from
_FRAMES = re.compile(r"File \"(?P<file>[^\"]+)\", line \d+, in (?P<function>\S+)")
_PARTS: tuple[tuple[str, str, str], ...] = (
    # file or function, what it is, what to do
    (r"spec_decode/|_mtp\.py|eagle\w*\.py|dflash\w*\.py|medusa\.py", "speculative decoding",
     "remove speculative-config"),
    (r"/lora/", "LoRA adapters",
     "remove enable-lora and lora-modules, or serve the adapter merged into the weights"),
    (r"kv_connector/|/kv_transfer/|/kv_offload/", "the KV connector",
     "remove kv-transfer-config and kv-offloading-size"),
    (r"structured_output/|xgrammar|llguidance|outlines", "structured output",
     "choose another backend with structured-outputs-config"),
    (r"weight_loader|load_weights|model_executor/parameter\.py|fused_moe/layer\.py.*_load_w"
     r"|model_loader/", "loading the weights",
     "use a newer image, if the model is younger than this one; compare config.json with"
     " the original's and fetch the checkpoint again; set tensor-parallel-size: 1 if the weights"
     " cannot"
     " be split"),
    (r"layers/mamba/|mamba_utils|gdn_attn|linear_attn|mamba\w*_attn", "Mamba and linear attention",
     "set no-enable-prefix-caching; and, if it is set, remove speculative-config"),
    (r"fused_moe/", "the mixture-of-experts kernels",
     "set another moe-backend: marlin or triton"),
    (r"layers/quantization/|kernels/linear/", "the quantized layers",
     "use a checkpoint with another quantization, or a newer image"),
    (r"v1/attention/|attention/backends/|flashinfer/(?:decode|prefill|mla)", "the attent"
                                                                             "ion backend",
     "set another attention-backend: TRITON_ATTN, FLASH_ATTN or FLASHINFER"),
    (r"cuda_graph|cudagraph", "CUDA graphs",
     "set compilation-config.cudagraph_mode: NONE, or enforce-eager: true"),
    (r"vllm/compilation/|torch/_(?:inductor|dynamo|functorch)/|triton/compiler", "torch.compile",
     "set enforce-eager: true; a damaged compile cache is removed with VLLM_CACHE_ROOT"),
    (r"/multimodal/|processing_utils\.py|image_processing", "processing images, video or audio",
     "set language-model-only: true to serve text alone"),
    (r"v1/core/|kv_cache_(?:manager|utils|coordinator)", "the scheduler's KV cache",
     "set no-enable-prefix-caching; or no-async-scheduling"),
)  # fmt: skip


def _part(values: Values) -> Values | None:
    """The part that raised it, by its innermost frames; None for an error from elsewhere."""
    frames = list(_FRAMES.finditer(values.get("frames", "")))[-_INNERMOST:]
    for frame in reversed(frames):
        where = f"{frame['file']} {frame['function']}"
        for pattern, part, how in _PARTS:
            if re.search(pattern, where):
                name = frame["file"].rpartition("/")[2]
                return {"part": part, "how": how, "where": f"{name}, {frame['function']}"}
    return None


RULES = (
    Rule(
        id="part_fails",
        patterns=(r"^(?P<what>(?:AssertionError|IndexError|KeyError|TypeError|AttributeError"
                  r"|NotImplementedError|ValueError|RuntimeError|ZeroDivisionError"
                  r"|UnboundLocalError|torch\._dynamo\.exc\.\w+)(?:: .{0,200}|$))",),
        cause="{part} fails in {where}: {what}",
        fix="{how}; or use a newer image",
        source="vllm#50454, vllm#44637 and others: the frame is the only clue",
        rank=Rank.GENERAL,
        compute=_part,
        deaths_only=True,
        unless=r"(?i)CUDA|NCCL|cublas|out of memory|No space|Permission denied|nvml|gloo|Address",
    ),
)  # fmt: skip

"""Combinations that vLLM refuses, each explained by the setting that has to change.

vLLM has hundreds of sentences of the form "X is not supported with Y". They share no wording, but
they name what they are about; the table below maps those words to the flag that a user can change.
"""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values
from vllm_spark.flags.history import KNOWN

_SETTINGS: tuple[tuple[str, str, str], ...] = (
    # words in the message, the flag, what to do about it
    (r"spec(?:ulative|[-_ ]?decod)|eagle|\bMTP\b|dflash|dspark|draft|num_spec", "speculati"
                                                                                "ve-config",
     "remove speculative-config, or change its method or num_speculative_tokens"),
    (r"turboquant|ultraquant|kv[-_ ]?cache[-_ ]?d?type|fp8[_ ]kv|kv cache quant", "kv-cache-dtype",
     "remove kv-cache-dtype, or set kv-cache-dtype: fp8"),
    (r"prefix[-_ ]caching|mamba.{0,30}(?:align|cache mode)", "enable-prefix-caching",
     "set no-enable-prefix-caching"),
    (r"chunked[-_ ]?(?:prefill|mm)", "enable-chunked-prefill",
     "set enable-chunked-prefill as the message says"),
    (r"offload|kv[-_ ]connector|\bconnector\b|lmcache|\bHMA\b|hybrid kv cache manager",
     "kv-offloading-size",
     "remove kv-offloading-size and kv-transfer-config, or set disable-hybrid-kv-cache-manager as"
     " the message says"),
    (r"\blora\b", "enable-lora", "remove enable-lora and lora-modules, or change them as it says"),
    (r"bitsandbytes|\bBNB\b|quantiz|\bquant\b|\bgptq\b|\bawq\b|marlin|nvfp4|mxfp4", "quantization",
     "remove quantization, or use a checkpoint with another quantization"),
    (r"expert[-_ ]parallel|\bEPLB\b|all2all", "enable-expert-parallel",
     "remove enable-expert-parallel (and enable-eplb, all2all-backend)"),
    (r"pipeline[-_ ]parallel|\bPP\b", "pipeline-parallel-size", "set pipeline-parallel-size: 1"),
    (r"context[-_ ]parallel|\bDCP\b|\bPCP\b", "decode-context-parallel-size",
     "remove decode-context-parallel-size"),
    (r"data[-_ ]parallel", "data-parallel-size", "set data-parallel-size: 1"),
    (r"tensor[-_ ]parallel|\btp_size\b|\bTP\b", "tensor-parallel-size",
     "change tensor-parallel-size as the message says"),
    (r"attention[-_ ]backend|\w*(?:FLASH_ATTN|TRITON_ATTN|FLASHINFER)", "attention-backend",
     "remove attention-backend, or set another one (TRITON_ATTN, FLASH_ATTN)"),
    (r"moe[-_ ]backend", "moe-backend", "remove moe-backend, or set moe-backend: marlin"),
    (r"linear[-_ ]backend", "linear-backend", "remove linear-backend"),
    (r"cuda ?graph|compilation|torch\.compile|sequence parallelism", "compilation-config",
     "change compilation-config as the message says, or set enforce-eager: true"),
    (r"async[-_ ]scheduling", "async-scheduling", "set no-async-scheduling"),
    (r"sleep[-_ ]mode|cumem", "enable-sleep-mode", "remove enable-sleep-mode"),
    (r"multi-?modal|mm[-_]\w+|encoder cache|vision|\bimages?\b.{0,60}(?:token|prompt|item)",
     "limit-mm-per-prompt",
     "change limit-mm-per-prompt or mm-processor-kwargs; language-model-only: true serves text"
     " alone"),
    (r"structured[-_ ]output|guided|xgrammar|guidance", "structured-outputs-config",
     "change structured-outputs-config"),
    (r"block[-_ ]size", "block-size", "remove block-size"),
    (r"\brunner\b|pooling|--convert", "runner", "change runner or convert: a model for chat is"
                                                " not one"
                                          " for"
     " embeddings"),
    (r"distributed[-_ ]executor|\bexecutor\b", "distributed-executor-backend",
     "change distributed-executor-backend"),
    (r"load[-_ ]format|streamer|tensorizer", "load-format", "remove load-format"),
    (r"tokenizer[-_ ]mode", "tokenizer-mode", "remove tokenizer-mode"),
    (r"rope|hf[-_ ]overrides", "hf-overrides", "change hf-overrides"),
)  # fmt: skip
_FLAG_NAMED = re.compile(r"--(?P<name>[a-z][\w-]+)|`?\b(?P<word>[a-z]+(?:_[a-z]+)+)\b`?")


def _setting(values: Values) -> Values | None:
    """The flags that the message names, else those that its words are about; None without any."""
    why = values["why"]
    named = []
    for found in _FLAG_NAMED.finditer(why):
        name = (found["name"] or found["word"]).replace("_", "-").removeprefix("no-")
        if name in KNOWN and name not in named:
            named.append(name)
    about = [how for words, _, how in _SETTINGS if re.search(f"(?i:{words})", why)]
    if not named and not about:
        return None
    how = about[0] if about else f"change {', '.join(named[:3])} as the message says"
    more = [name for name in named if name not in how]
    also = f" (the message names {', '.join(more[:4])})" if more and about else ""
    return {"how": how, "also": also}


def _given(values: Values) -> Values:
    """pydantic names the setting a line before, and repeats the value."""
    return {"given": f", not {values['value']}" if values.get("value") else ""}


_KINDS = r"(?:ValueError|NotImplementedError|AssertionError|RuntimeError|TypeError|Value error)"
_REFUSES = (r"(?:not (?:yet )?(?:be )?(?:supported|implemented|compatible|allowed|enabled"
            r"|available)"
            r"|(?:does|do|is|are|can)(?: not|n't) (?:yet |currently )?(?:support|work|be (?:used"
            r"|combined"
            r"|set|enabled))|cannot (?:be )?(?:use|set|combine|enable|run)\w*|[Ii]ncompatible"
            r"|[Uu]nsupported|only (?:supports?|supported|works?|available|valid|be used)"
            r"|mutually exclusive"
            r"|[Cc]an't determine|conflicts? with|must (?:be|match|not|divide|have)|should be"
            r"|requires?"
            r"|(?i:please) (?:adjust|disable|set|use)"
            r"|(?i:unknown|invalid|unexpected))")  # fmt: skip

RULES = (
    Rule(
        id="lora_missing",
        patterns=(r"Loading lora (?P<name>\S+) failed: No adapter found for (?P<path>\S+)",),
        cause="there is no LoRA adapter {name} at {path}",
        fix="correct the path in lora-modules (as the container sees it), or fetch the adapter",
        source="vLLM 0.32 log; lora/worker_manager.py",
    ),
    Rule(
        id="lora_rank",
        patterns=(r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<most>\d+)",),
        cause="a LoRA adapter has rank {rank}, more than max-lora-rank {most}",
        fix="set max-lora-rank to at least {rank}",
        source="lora/peft_helper.py",
    ),
    Rule(
        id="lora_refused",
        patterns=(r"ValueError: (?:Call to add_lora method failed: )?(?:While loading )?"
                  r"(?P<why>\S+(?: is unsupported LoRA weight|, expected target modules in .+))",
                  r"Call to add_lora method failed: (?P<why>.+)"),
        cause="vLLM cannot use a LoRA adapter: {why}",
        fix="train or export the adapter for the modules that vLLM serves (no lm_head or embedding"
             " weights), or remove it from lora-modules",
        source="lora/utils.py; lora/lora_model.py",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="lora_unsupported_by_model",
        patterns=(r"(?P<why>\b\w{1,80} does not support LoRA yet)",),
        cause="this vLLM cannot serve LoRA adapters with this model: {why}",
        fix="remove enable-lora and lora-modules, merge the adapter into the weights, or use a"
            " newer"
             " image",
        source="v1/worker/lora_model_runner_mixin.py",
    ),
    Rule(
        id="speculation_unsupported_by_model",
        patterns=(r"(?P<why>Model does not support EAGLE3? interface.{0,80})",
                  r"(?P<why>(?:EAGLE3|Eagle3|eagle3|DFlash|MTP|Medusa)\w* is (?:only|not) supported"
                  r" (?:for|by) .{1,120})",
                  r"(?P<why>Unsupported speculative method: '?\w+'?)"),
        cause="this vLLM cannot decode speculatively with this model: {why}",
        fix="remove speculative-config, or use the method that the model has (mtp, where its"
             " checkpoint holds MTP layers); a newer image may support it",
        source="vllm-recipes#929; v1/worker/gpu/spec_decode",
    ),
    Rule(
        id="speculation_against_graphs",
        patterns=(r"Can't determine cudagraph shapes that are both a multiple of (?P<one>\d+)"
                  r" \(num_speculative_tokens \+ 1\) required by spec-decode and (?P<two>\d+)"
                  r" \(tensor_parallel_size\)",),
        cause="num_speculative_tokens + 1 = {one} and sequence parallelism over {two} GPUs allow no"
              " common CUDA graph size",
        fix="set num_speculative_tokens in speculative-config so that num_speculative_tokens + 1"
             " divides or is a multiple of {two}, or switch sequence parallelism off"
             " (compilation-config.pass_config.enable_sp: false)",
        source="vllm#29036",
    ),
    Rule(
        id="mamba_prefix_caching",
        patterns=(r"^(?P<what>(?:IndexError|AssertionError|KeyError|ValueError)\b.{0,100})",),
        frame=r"mamba_utils\.py|_mamba_block_aligned_split|single_type_kv_cache_manager.{0,80}[Mm]amba",
        cause="prefix caching of a Mamba (hybrid) model fails ({what}): it is experimental in this"
              " release",
        fix="set no-enable-prefix-caching, or use a newer image",
        source="vllm#44637; LMCache#3655",
    ),
    Rule(
        id="kv_offloading_fails",
        patterns=(r"^(?P<what>(?:AssertionError|IndexError|KeyError|RuntimeError|ValueError)\b"
                  r"(?!.*does not support).{0,120})",),
        frame=r"kv_connector/v1/offloading|vllm/v1/(?:simple_)?kv_offload/",
        cause="vLLM's KV cache offloading fails ({what}): with hybrid models and prefix caching a"
              " fault of this release",
        fix="remove kv-offloading-size; or set no-enable-prefix-caching; or use a newer image",
        source="vllm#50454",
    ),
    Rule(
        id="turboquant_hybrid",
        patterns=(r"(?P<why>TurboQuant KV cache is not supported for .{1,140})",),
        cause="this kv-cache-dtype does not go with the model: {why}",
        fix="remove kv-cache-dtype: turboquant_*, or set kv-cache-dtype: fp8",
        source="club-3090 INTERNALS.md; engine/arg_utils.py",
    ),
    Rule(
        id="hybrid_manager_disabled",
        patterns=(r"Hybrid KV cache manager is disabled but failed to convert the KV cache specs",),
        cause="this hybrid model needs the hybrid KV cache manager, which is disabled (by its"
              " flag, or"
              " by a KV connector or KV offloading that cannot work with it)",
        fix="remove disable-hybrid-kv-cache-manager and kv-transfer-config; remove"
             " kv-offloading-size; or use a newer image, whose connectors may support hybrid"
             " models",
        source="vllm#36463; LMCache#2845",
    ),
    Rule(
        id="combination_refused",
        patterns=(rf"{_KINDS}[:,] (?P<why>(?:.{{0,300}}\b)?{_REFUSES}\b.{{0,300}})",),
        cause="vLLM refuses this combination: {why}",
        fix="{how}{also}; or use a newer image, if it is not implemented yet",
        source="vllm/config, engine/arg_utils.py, model_executor, v1/worker of 0.13 to 0.33",
        rank=Rank.GENERAL,
        compute=_setting,
        deaths_only=True,
        unless=r"CUDA|cutlass|Sinks are|No such file|failed to be inspected",
    ),
    Rule(
        id="settings_refused",
        patterns=(r"^\s*Value error, (?P<why>.+?)(?: \[type=value_error.*)?$",
                  r"^\s*(?P<why>(?:Input should be|Extra inputs are not permitted|Field required)"
                  r".*?)"
                  r"(?: \[type=\w+, input_value=(?P<value>.{1,80}?), input_type=.*| \[type=.*)?$"),
        cause="vLLM refuses the settings: {why}{given}",
        fix="change what the message names, then start again",
        source="pydantic, for every config class of vLLM",
        rank=Rank.GENERAL,
        compute=_given,
        unless=r"failed to be inspected",
    ),
)  # fmt: skip

"""Failures of the weights: files that are missing or damaged, tensors that fit no parameter."""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values

# Tensors that only a quantized checkpoint has.
_SCALES = (r"[\w.]*(?:weight_scale|scale_inv|input_scale|qweight|qzeros|g_idx|weight_packed"
           r"|weight_shape|weight_scale_2|input_global_scale)\w*")  # fmt: skip
_NOT_TEXT = re.compile(
    r"^(?:model\.|thinker\.)?(?:visual|vision|vit|image|audio|video|multi_modal|mm_|embed_vision|embed_audio"
    r"|vision_tower|vision_model)\w*\."
)


def _all_of_vision(values: Values) -> Values | None:
    """Only where every missing tensor belongs to an encoder of images, video or audio."""
    names = re.findall(r"'([\w.]+)'", values["names"])
    if not names or not all(_NOT_TEXT.match(name) for name in names):
        return None
    return {"example": names[0]}


def _loader(values: Values) -> Values:
    """Whether the log shows that the quantization was read from config.json."""
    method = values.get("quantization") or ""
    model = re.findall(r"models/(\w+)\.py", values.get("frames", ""))
    where = f" ({model[-1]}.py)" if model else ""
    if method and method != "None":
        return {
            "why": f"this vLLM's loader for the model{where} cannot load a checkpoint quantized"
            f" with {method}: it has no place for {values['tensor']}",
            "how": "use a newer image, or the BF16 checkpoint with quantization: fp8",
        }
    if method == "None":
        return {
            "why": f"the weights are quantized (they hold {values['tensor']}) but config.json"
            " does not say how",
            "how": "use the config.json of the original checkpoint: quantization_config is"
            " missing in this one",
        }
    return {
        "why": f"the weights are quantized (they hold {values['tensor']}), and this vLLM's"
        f" loader{where} has no place for that: it cannot load this kind of quantized"
        " checkpoint, or config.json lacks its quantization_config",
        "how": "compare quantization_config in config.json with the original's; if it is there,"
        " use a newer image, or the BF16 checkpoint with quantization: fp8",
    }


def _capability(values: Values) -> Values:
    needs, has = values.get("needs"), values.get("has")
    return {"capability": f" (needs capability {needs}, has {has})" if needs else ""}


RULES = (
    Rule(
        id="weights_missing",
        patterns=(r"Cannot find any model weights with `(?P<path>[^`]*)`",),
        cause="there are no weights (*.safetensors) in {path}",
        fix="fetch the weights into {path}: only config and tokenizer are there",
        source="vLLM 0.26 log; default_loader.py",
    ),
    Rule(
        id="shard_missing",
        patterns=(r"Weight files referenced in index but missing: (?P<files>.+)",
                  r"No such file or directory: \"?'?(?P<files>[^'\"]*\.(?:safetensors|bin|gguf))"),
        cause="weight files are missing: {files}",
        fix="fetch them again: the index names files that are not there",
        source="weight_utils.py",
    ),
    Rule(
        id="shard_truncated",
        patterns=(r"incomplete metadata, file not fully covered", r"MetadataIncompleteBuffer",
                  r"Consistency check failed: file should be of size (?P<size>\d+)",
                  r"PytorchStreamReader failed"),
        cause="a weight file is cut off (an interrupted download, a full disk)",
        fix="compare the sizes of the *.safetensors of {model} with the hub's, delete the short"
             " one and fetch it again",
        source="vLLM 0.26 log; safetensors",
    ),
    Rule(
        id="shard_not_safetensors",
        patterns=(r"deserializing header: (?:header too (?:large|small)|invalid (?:UTF|JSON)\S*"
                  r"|HeaderToo(?:Large|Small)|InvalidHeader\w*)",),
        cause="a *.safetensors file is something else: an HTML page, a Git LFS pointer, an empty"
              " file",
        fix="look at the smallest *.safetensors of {model} (`head -c 100`), delete it and fetch"
             " it again with the hub's own client",
        source="vLLM 0.26 log; safetensors",
    ),
    Rule(
        id="shard_header_unreadable",
        patterns=(r"^(?:MemoryError|OverflowError|UnicodeDecodeError|struct\.error"
                  r"|json\.decoder\.JSONDecodeError)\b",),
        frame="parse_safetensors_file_metadata",
        cause="a *.safetensors file of {model} is something else: an HTML page, a Git LFS pointer,"
              " an empty file",
        fix="look at its smallest *.safetensors (`head -c 100`), delete it and fetch it again with"
             " the hub's own client",
        source="vLLM 0.32 log; transformers_utils/utils.py",
    ),
    Rule(
        id="vision_weights_missing",
        patterns=(r"weights were not initialized from checkpoint: (?P<names>\{.{1,4000})",),
        cause="the checkpoint holds no weights for images, video or audio ({example}, ...), but its"
              " config.json names a multimodal architecture: a text-only fine-tune",
        fix=("set language-model-only: true (leaves the vision tower out)",
             "set the text architecture with hf-overrides", ),
        source="dgx-spark-benchmarks kat-coder; default_loader.py",
        compute=_all_of_vision,
    ),
    Rule(
        id="quantization_config_missing",
        patterns=(rf"AttributeError: '\w+' object has no attribute '(?P<tensor>{_SCALES})'",
                  rf"KeyError: '(?P<tensor>{_SCALES})'",
                  rf"no module or parameter named '(?P<tensor>{_SCALES})'"),
        cause="{why}",
        fix="{how}",
        source="vLLM 0.26 log; models/utils.py; vllm#38912",
        compute=_loader,
    ),
    Rule(
        id="weights_do_not_fit_config",
        patterns=(r"no module or parameter named '(?P<what>[^']*)'",
                  r"Attempted to load weight \((?P<what>[^)]*\)?)\) into parameter",
                  r"(?P<what>weights were not initialized from checkpoint.{0,80})",
                  r"KeyError: '(?P<what>(?:model\.|language_model\.)*layers\.\d+\.[^']+)'",
                  r"AssertionError: (?P<what>Tried to load weights of size .*)"),
        cause="the checkpoint's tensors are not those that this vLLM's code for the model expects"
              " ({what})",
        fix="use a newer image, if the model is younger than this one; fetch the whole checkpoint"
             " again, config.json and weights from one revision; of a fine-tune or a quantized copy"
             " compare config.json with the original's",
        source="models/utils.py; weight_utils.py",
        rank=Rank.GENERAL,
    ),
    Rule(
        id="weights_not_divisible",
        patterns=(r"(?P<why>The output_size of gate's and up's weight = \d+ is not divisible by"
                  r" weight quantization block_n = \d+)",
                  r"(?P<why>Weight \w+ ?= ?\d+(?: for layer '[^']*')? is not divisible by +"
                  r"(?:weight quantization block_[nk]|min_thread_[nk]|group_size) ?= ?\d+)",
                  r"(?P<why>The (?:in|out)put size is not aligned with the quantized weight shape)",
                  r"(?P<why>\b\w{0,40}MARLIN_MIN_THREAD_[NK] \(\d+\) > \w+)",
                  r"AssertionError: (?P<why>\d+ is not divisible by \d+)"),
        cause="the model's weights cannot be split like this: {why}",
        fix="lower tensor-parallel-size (of a mixture of experts, enable-expert-parallel: true"
             " keeps each expert whole), or use a checkpoint with another quantization",
        source="vllm#17569, vllm#13640, vllm#5675, vllm#40361; distributed/utils.py",
    ),
    Rule(
        id="quantization_not_implemented",
        patterns=(r"NotImplementedError: (?P<why>.{0,120}\b(?:BNB|[Bb]itsandbytes|AWQ|GPTQ|GGUF|FP8"
                  r"|NVFP4|MXFP4)\b.{0,80})",
                  r"(?P<why>Model \w+ does not support (?i:bitsandbytes) quantization.{0,60})"),
        cause="this vLLM has not implemented the quantization for this model: {why}",
        fix="use a newer image, or a checkpoint with another quantization (FP8, NVFP4 or AWQ) in"
             " place of quantization: {quantization}",
        source="vllm#35845",
        compute=lambda values: {"quantization": values.get("quantization") or "bitsandbytes"},
        unless=r"(?i)kv.?cache|MoE backend|lora",
    ),
    Rule(
        id="quantization_unsupported_gpu",
        patterns=(r"The quantization method (?P<method>\S+) is not supported for the current GPU\."
                  r" Minimum capability: (?P<needs>\d+)\. Current capability: (?P<has>\d+)",
                  r"Quantization (?P<method>scheme) is not supported for the current GPU",
                  r"\b(?P<method>\w{1,40}) quantization is currently not supported (?:in|on|for)"),
        cause="quantization {method} does not run on this GPU{capability}",
        fix="use a checkpoint with another quantization (FP8 or NVFP4 on a DGX Spark), or an"
             " image that is built for this GPU",
        source="config/vllm.py",
        compute=_capability,
    ),
)  # fmt: skip

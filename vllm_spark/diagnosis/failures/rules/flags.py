"""Settings that a release does not know or that contradict the model: flags, lengths, parsers."""

from __future__ import annotations

import re

from vllm_spark.diagnosis.failures.remedies import advice_on_flag
from vllm_spark.diagnosis.failures.rule import Rank, Rule, Values


def _unknown_flags(values: Values) -> Values:
    flags = re.findall(r"(?:^|\s)(--?[A-Za-z][\w.-]*)", values["flags"])
    version = f" {values['version']}" if values["version"] else ""
    fix = "; ".join(advice_on_flag(flag, values["version"]) for flag in flags)
    return {
        "of_version": version,
        "advice": fix or "remove it: every argument but the model needs a flag before it",
    }


def _length_beyond_positions(values: Values) -> Values:
    return {"positions": values["derived"].split(".")[0]}


def _short(values: Values) -> Values:
    """Choices as vLLM lists them, cut to what a person reads."""
    choices = [c.strip(" '\"") for c in (values.get("choices") or "").split(",")]
    shown = ", ".join(choices[:24]) + (", ..." if len(choices) > 24 else "")
    return {"choices": shown or "those that `vllm serve --help` names"}


_CHOICES = r"(?P<choices>[^{}()\[\]\"]*)"

RULES = (
    Rule(
        id="flag_unknown",
        patterns=(r"error: unrecognized arguments: (?P<flags>.+)",),
        cause="this vLLM{of_version} does not know: {flags}",
        fix="{advice}",
        source="argparse, exit code 2",
        compute=_unknown_flags,
        anywhere=True,
        about_flags=True,
    ),
    Rule(
        id="flag_choice",
        patterns=(r"error: argument (?P<flag>[^:]+): invalid choice: (?P<value>'[^']*'|\S+)"
                  r"(?: \(choose from (?P<choices>.*?)\)?$)?",),
        cause="{flag} does not accept the value {value}",
        fix="set {flag} to one of: {choices}",
        source="argparse, exit code 2",
        compute=_short,
        anywhere=True,
    ),
    Rule(
        id="flag_value",
        patterns=(r"error: argument (?P<flag>[^:]+): (?P<why>.+)",),
        detail=r"^\s+(?P<why>(?:Invalid JSON|Input should|Value error|Unexpected|Field).+?)"
               r"(?: \[type=|$)",
        cause="the value of {flag} cannot be read: {why}",
        fix="correct the value of {flag} (JSON values must be complete and in quotes)",
        source="argparse with pydantic, exit code 2",
        anywhere=True,
    ),
    Rule(
        id="flag_refused",
        patterns=(r"^\S{0,80}(?:vllm|server)[\w .-]{0,40}: error: (?P<why>.+)",),
        cause="the command line is refused: {why}",
        fix="correct the flags: `vllm serve --help` of the same image lists them",
        source="argparse, exit code 2",
        rank=Rank.GENERAL,
        anywhere=True,
    ),
    Rule(
        id="tool_choice_without_parser",
        patterns=(r"--enable-auto-tool-choice requires --tool-call-parser",),
        cause="enable-auto-tool-choice is set without tool-call-parser",
        fix="set tool-call-parser too (hermes for Qwen3, llama3_json for Llama 3.x), or remove"
             " enable-auto-tool-choice",
        source="vLLM 0.26 log; entrypoints cli_args.py",
    ),
    Rule(
        id="reasoning_without_parser",
        patterns=(r"--enable-reasoning requires --reasoning-parser",),
        cause="enable-reasoning is set without reasoning-parser",
        fix="set reasoning-parser, or remove enable-reasoning",
        source="entrypoints/openai/cli_args.py",
    ),
    Rule(
        id="tool_parser_unknown",
        patterns=(rf"invalid tool call parser: (?P<name>\S+)(?: \(chose from \{{{_CHOICES})?",
                  r"Tool parser '(?P<name>[^']*)' not found"
                  rf"(?:\. Available parsers: {_CHOICES})?"),
        cause="there is no tool-call-parser named {name}",
        fix="set tool-call-parser to one of: {choices}",
        source="vLLM 0.26 log; launcher.py",
        compute=_short,
    ),
    Rule(
        id="reasoning_parser_unknown",
        patterns=(r"Reasoning parser '(?P<name>[^']*)' not found"
                  rf"(?:\. Available parsers: {_CHOICES})?",
                  rf"invalid reasoning parser: (?P<name>\S+)(?: \(chose from \{{{_CHOICES})?",
                  r"reasoning helper: '(?P<name>[^']*)' not found"),
        cause="there is no reasoning-parser named {name}",
        fix="set reasoning-parser to one of: {choices}; a model that does not think needs none",
        source="vLLM 0.26 log; launcher.py",
        compute=_short,
    ),
    Rule(
        id="chat_template_missing",
        patterns=(r"supplied chat template (?:string )?\((?P<path>[^)]*)\) "
                  r"(?:appears path-like, but doesn't exist|is not a valid path"
                  r"|looks like a file path, but it failed to be opened)",),
        cause="the chat template {path} does not exist (or is not readable) inside the container",
        fix="mount the file and give its path in the container, or remove chat-template",
        source="entrypoints/chat_utils.py",
    ),
    Rule(
        id="length_beyond_positions",
        patterns=(r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived "
                  r"max_model_len \((?:[\w.]+=)?(?P<derived>[\d.]+)",),
        cause="max-model-len {asked} is beyond the model's {positions} positions",
        fix="set max-model-len to at most {positions}",
        source="vLLM 0.26 log; config/model.py",
        compute=_length_beyond_positions,
    ),
    Rule(
        id="batched_tokens_below_length",
        patterns=(r"max_num_batched_tokens \((?P<tokens>\d+)\) is smaller than max_model_len "
                  r"\((?P<asked>\d+)\)",),
        cause="max-num-batched-tokens {tokens} is smaller than max-model-len {asked}",
        fix="set max-num-batched-tokens to at least {asked}, or enable-chunked-prefill",
        source="config/scheduler.py",
    ),
    Rule(
        id="batched_tokens_below_image",
        patterns=(r"max_tokens_per_mm_item \((?P<needs>\d+)\) is larger than max_num_batched_tokens"
                  r" \((?P<tokens>\d+)\)",),
        cause="one image may take {needs} tokens, more than max-num-batched-tokens {tokens}",
        fix="set max-num-batched-tokens to at least {needs}, or limit the image's size with"
             " mm-processor-kwargs",
        source="v1/core/encoder_cache_manager.py",
    ),
    Rule(
        id="batched_tokens_below_seqs",
        patterns=(r"max_num_batched_tokens \((?P<tokens>\d+)\) must be greater than or equal to "
                  r"max_num_seqs \((?P<seqs>\d+)\)",),
        cause="max-num-batched-tokens {tokens} is smaller than max-num-seqs {seqs}",
        fix="set max-num-batched-tokens to at least {seqs}, or max-num-seqs to at most {tokens}",
        source="config/scheduler.py",
    ),
    Rule(
        id="quantization_mismatch",
        patterns=(r"Quantization method specified in the model config \((?P<has>[^)]*)\) does not "
                  r"match the quantization method specified in the `quantization` argument "
                  r"\((?P<asked>[^)]*)\)",),
        cause="quantization {asked} is asked for, but the checkpoint is quantized with {has}",
        fix="remove quantization: vLLM reads {has} from the model's config.json",
        source="vLLM 0.26 log; config/model.py",
    ),
    Rule(
        id="quantization_unknown",
        patterns=(r"(?:Unknown|Invalid) quantization method: (?P<asked>[\w-]+)"
                  r"(?:.*?one of \[(?P<choices>[^\]]*))?",),
        cause="there is no quantization method named {asked}",
        fix="remove quantization (a quantized checkpoint says its own), or set one of: {choices}",
        source="config/model.py",
        compute=_short,
    ),
    Rule(
        id="quantization_of_plain_checkpoint",
        patterns=(r"Cannot find the config file for (?P<method>[\w-]+)",),
        cause="quantization {method} is asked for, but the checkpoint is not quantized that way",
        fix="remove quantization, or use a checkpoint that is quantized with {method}",
        source="vLLM 0.32 log; weight_utils.py",
    ),
    Rule(
        id="dtype_for_quantization",
        patterns=(r"(?P<dtype>torch\.\w+) is not supported for quantization method (?P<method>\w+)"
                  r"\. Supported dtypes: \[(?P<choices>[^\]]*)",),
        cause="dtype {dtype} does not go with quantization {method}",
        fix="set dtype to one of: {choices}",
        source="config/vllm.py",
        compute=_short,
    ),
    Rule(
        id="load_format_unknown",
        patterns=(r"Load format `(?P<name>[^`]*)` is not supported",
                  r"Unknown load_format: (?P<name>\S+)"),
        cause="there is no load-format named {name}",
        fix="remove load-format (auto suits safetensors), or set safetensors or fastsafetensors",
        source="vLLM 0.26 log; model_loader/__init__.py",
    ),
    Rule(
        id="world_size_above_gpus",
        patterns=(r"World size \((?P<size>\d+)\) is larger than the number of available GPUs "
                  r"\((?P<gpus>\d+)\)",
                  r"Tensor parallel size \((?P<size>\d+)\) (?:cannot be larger than|exceeds) the "
                  r"number of available GPUs \((?P<gpus>\d+)\)",
                  r"please set tensor_parallel_size \((?P<size>\d+)\) to less than max local gpu"
                  r" count \((?P<gpus>\d+)\)"),
        cause="tensor- and pipeline-parallel sizes ask for {size} GPUs, this node has {gpus}",
        fix="set tensor-parallel-size and pipeline-parallel-size to 1 on one Spark; on two, set"
             " distributed-executor-backend: ray; or nnodes, node-rank and master-addr on each",
        source="vLLM 0.26 log; config/parallel.py",
    ),
    Rule(
        id="heads_not_divisible",
        patterns=(r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor "
                  r"parallel size \((?P<size>\d+)\)",),
        cause="the model's {heads} attention heads cannot be split over {size} GPUs",
        fix="set tensor-parallel-size to a divisor of {heads}",
        source="config/model.py",
    ),
    Rule(
        id="environment_not_a_number",
        patterns=(r"ValueError: (?:invalid literal for int\(\).*|could not convert string to float)"
                  r": '(?P<value>[^']*)'",),
        frame="vllm/envs.py",
        cause="an environment variable of vLLM should be a number and is '{value}'",
        fix="correct or remove it: the lines around the one that the traceback names in"
             " vllm/envs.py say which",
        source="vLLM 0.32 log; envs.py",
    ),
    Rule(
        id="json_broken",
        patterns=(r"(?:Value error, |JSONDecodeError: )(?P<why>(?:Expecting|Extra data|Unterminated"
                  r"|Invalid)\b.{0,80}?: line \d+ column \d+)",),
        cause="a value that should be JSON is not: {why}",
        fix="look at the model's *.json files (cut off, an error page?) and at the flags that take"
             " JSON",
        source="Python json, in vllm#26161",
        rank=Rank.GENERAL,
    ),
)  # fmt: skip

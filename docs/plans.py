"""The memory plans in the documents: of stacks, of known checkpoints, and of published runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from docs.tables import markdown_table
from tests.planner_data import CONFIGS, DATA, LOADED, shape
from vllm_spark.cli.fit import flags_of, tried
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.deployment.review import plan_of
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.kv.cached_layers import Attention, CachedLayers, State
from vllm_spark.memory.limits import GIB, Machine
from vllm_spark.memory.misfits import fits, problems_of, warnings_of
from vllm_spark.memory.model_config import read_config
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.memory.report import table
from vllm_spark.problems import Unmodelled

STACKS = ("spark", "qwen3-32b", "llama33-70b", "qwen3-vl-30b")
"""The stacks of the repository that need a GPU, the guide's first."""


def make_fit(stack: str) -> str:
    """A code block: `make fit` for a stack, and its output."""
    plan = table(_plan(stack), _settings(stack).model.id)
    return f"```console\n$ make fit STACK={stack}\n{plan}\n```"


def trials(stack: str, *engines: str) -> str:
    """A table of plans: the stack as it is, then the stack with each of these flags."""
    rows = []
    for engine in ("", *engines):
        plan = _plan(stack, engine)
        name = f"`{engine}`" if engine else f"as in `Pulumi.{stack}.yaml`"
        columns: tuple[Callable[[MemoryPlan], str], ...] = (
            lambda plan: f"{plan.pool_gib:.1f} GiB",
            lambda plan: f"{plan.kv_tokens:,}",
            _sequences,
            lambda plan: f"{plan.headroom_gib:.1f} GiB",
            _fits,
        )
        rows.append([name, *(_cell(plan, column) for column in columns)])
    head = ["flags", "KV cache", "tokens", "full sequences", "left to the host", "fits"]
    return markdown_table(head, rows)


def comparison(measured: Mapping[str, str], *, source: str) -> str:
    """The models of the stacks side by side; `measured` has tokens/s by stack, from `source`."""
    plans = [_plan(stack) for stack in STACKS]
    lines: dict[str, Callable[[MemoryPlan], str]] = {
        "parameters": lambda plan: f"{plan.shape.parameters / 1e9:.1f} billion",
        "experts": _experts,
        "longest context": lambda plan: f"{plan.shape.positions:,}",
        "weights": lambda plan: f"{plan.weights_gib:.1f} GiB",
        "KV cache a token": lambda plan: f"{plan.kv_bytes_per_token:,} bytes",
        "`gpu-memory-utilization`": lambda plan: f"{plan.limits.utilization}",
        "KV cache": lambda plan: f"{plan.pool_gib:.1f} GiB",
        "in tokens": lambda plan: f"{plan.kv_tokens:,}",
        "full sequences": _sequences,
        "left to the host": lambda plan: f"{plan.headroom_gib:.1f} GiB",
        "read for one token": lambda plan: f"{plan.gigabytes_read_per_token:.2f} GB",
        "one stream, at most": lambda plan: f"{plan.roofline_tokens_per_second:.1f} tok/s",
    }
    rows = [[name, *(_cell(plan, cell) for plan in plans)] for name, cell in lines.items()]
    rows.append(
        [f"one stream, measured {source}", *(measured.get(stack, "not yet") for stack in STACKS)]
    )
    return markdown_table(["", *(f"`{stack}`" for stack in STACKS)], rows)


def summary(*stacks: str) -> str:
    """The stacks, a row each; those of the guide if none is named."""
    rows = []
    for stack in stacks or STACKS:
        plan, model = _plan(stack), _settings(stack).model.id
        rows.append(
            [
                f"`{stack}`",
                model.partition("/")[2],
                _cell(plan, lambda plan: f"{plan.kv_tokens:,}"),
                _cell(plan, _sequences),
                _cell(plan, lambda plan: f"{plan.roofline_tokens_per_second:.1f} tok/s"),
            ]
        )
    head = ["stack", "model", "KV cache, tokens", "full sequences", "one stream, at most"]
    return markdown_table(head, rows)


def published_tokens() -> str:
    """The KV caches that servers printed, and what is planned for the same pool."""
    rows = []
    for case in json.loads((DATA / "vectors.json").read_text()):
        plan = _planned_pool(case)
        off = 100 * (plan.kv_tokens / case["tokens"] - 1)
        rows.append(
            [
                case["name"],
                case["vllm"],
                f"{case['pool_gib']:.2f} GiB",
                f"{case['tokens']:,}",
                f"{plan.kv_tokens:,}",
                "exact" if plan.kv_tokens == case["tokens"] else f"{off:+.3f} %",
                case["source"],
            ]
        )
    head = ["model and flags", "vLLM", "pool", "tokens printed", "planned", "off", "source"]
    return markdown_table(head, rows)


def published_weights() -> str:
    """The weights that servers logged, and what is planned from config.json alone."""
    rows = []
    for case in json.loads((DATA / "weights.json").read_text()):
        model = shape(case["config"])
        loaded = LOADED[case["parts"]]
        planned = model.weight_bytes(model.quantization, 2, 1, loaded) / GIB
        rows.append(
            [
                case["config"].replace("--", "/"),
                case["parts"],
                f"{case['gib']:.2f} GiB",
                f"{planned:.2f} GiB",
                f"{100 * (planned / case['gib'] - 1):+.2f} %",
                case["source"],
            ]
        )
    return markdown_table(["model", "loaded", "logged", "planned", "off", "source"], rows)


def known_configs() -> str:
    """What a plan knows of the checkpoints whose configs the tests keep."""
    rows = []
    for path in CONFIGS:
        model = read_config(path)
        name = path.stem.replace("--", "/")
        if isinstance(model, Unmodelled):
            rows.append([name, "", "", f"not without its bytes: {model.reason.split(';')[0]}"])
            continue
        kinds = sorted({kind_of(layer) for layer in model.cached})
        weights = model.weight_bytes(model.quantization, 2, 1) / GIB
        tower = model.vision_parameters is None
        remark = "without its vision tower" if tower else ""
        if model.pads_experts:
            remark = "the kernel decides about 5 to 8 % of it"
        rows.append([name, f"{weights:.1f} GiB", ", ".join(kinds), remark])
    return markdown_table(["checkpoint", "weights", "cached layers", "remark"], rows)


def kind_of(layer: CachedLayers) -> str:
    """A cached layer's kind in words."""
    match layer:
        case State(kind="gdn"):
            return "Gated DeltaNet"
        case State():
            return "Mamba-2"
        case Attention(retained_tokens=int()):
            return "sliding window"
        case Attention(latent=True):
            return "latent (MLA)"
        case Attention():
            return "attention"
    return "packed latents"


def _planned_pool(case: Mapping[str, Any]) -> MemoryPlan:
    flags = flags_of(case["engine"]).replaced_by(
        EngineFlags(
            {
                "max-model-len": case["max_model_len"],
                "max-num-batched-tokens": case["max_num_batched_tokens"],
                "kv-cache-memory-bytes": int(case["pool_gib"] * GIB),
            }
        )
    )
    version = Version.parse(case["vllm"])
    plan = make_plan(shape(case["config"]), flags, Machine(), version)
    assert isinstance(plan, MemoryPlan)
    return plan


def _settings(stack: str, engine: str = "") -> Settings:
    return tried(load_stack(stack_file(stack)), flags_of(engine))


def _plan(stack: str, engine: str = "") -> MemoryPlan | Unmodelled:
    return plan_of(_settings(stack, engine))


def _cell(plan: MemoryPlan | Unmodelled, text: Callable[[MemoryPlan], str]) -> str:
    return "not modelled" if isinstance(plan, Unmodelled) else text(plan)


def _experts(plan: MemoryPlan) -> str:
    return f"{plan.shape.experts_per_token} a token" if plan.shape.experts_per_token else "none"


def _sequences(plan: MemoryPlan) -> str:
    return f"{plan.full_length_sequences:.1f} of {plan.max_model_len:,}"


def _fits(plan: MemoryPlan) -> str:
    if problems := problems_of(plan):
        return f"no: {problems[0].fix}"
    verdict = {"yes": "yes", "maybe": "it may", "no": "no"}[fits(plan)]
    doubts = warnings_of(plan)
    return f"{verdict}, at a risk: {doubts[0].fix}" if doubts else verdict

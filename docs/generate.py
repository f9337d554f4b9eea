"""Generates the parts of the documents that the program knows: config keys, plans, help.

The documents call these functions in comments. `make docs` runs the calls with cogapp and writes
the results below them. A unit test runs them again, so a document cannot differ from the program.
Every function returns Markdown.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from click.testing import CliRunner
from pydantic import BaseModel, IPvAnyAddress, SecretStr
from pydantic.fields import FieldInfo

from tests.planner_data import CONFIGS, DATA, LOADED, shape
from vllm_spark.changes.markdown import markdown
from vllm_spark.changes.report import read_report
from vllm_spark.cli.fit import flags_of, tried
from vllm_spark.cli.main import main
from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.deployment.gpu_access import GpuOffer
from vllm_spark.deployment.review import plan_of
from vllm_spark.diagnosis.verdict import diagnose
from vllm_spark.docker_host import (
    connection,
    container_watch,
    fetch,
    host,
    image_check,
    memory_wait,
    preflight,
    pull,
)
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.gate import gate, metrics
from vllm_spark.gate.probe import Probe
from vllm_spark.images import DISPUTED, NGC_VERSIONS, Version
from vllm_spark.in_image import fetch_weights
from vllm_spark.memory.kv.cached_layers import Attention, CachedLayers, State
from vllm_spark.memory.limits import GIB, Machine
from vllm_spark.memory.misfits import fits, problems_of, warnings_of
from vllm_spark.memory.model_config import read_config
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.memory.report import table
from vllm_spark.policy.rules import RULES
from vllm_spark.problems import Unmodelled
from vllm_spark.project import ROOT

REPORTS = ROOT / "tests" / "data" / "reports"

STACKS = ("spark", "qwen3-32b", "llama33-70b", "qwen3-vl-30b")
"""The stacks of the repository that need a GPU, the guide's first."""


def config_keys() -> str:
    """Every config key: a table of the top-level keys, then a table for each object."""
    return "\n\n".join([_keys_table(NAMESPACE, Settings), *_objects(f"{NAMESPACE}:", Settings)])


def _objects(prefix: str, model: type[BaseModel]) -> Iterator[str]:
    """A table for each object among the keys of a model, and for the objects in that."""
    for name, field in model.model_fields.items():
        members = get_args(field.annotation) if get_origin(field.annotation) is list else ()
        section = _section(members[0] if members else field.annotation)
        if section is not None:
            key = f"{prefix}{field.alias or name}{'[N]' if members else ''}"
            about = inspect.cleandoc(section.__doc__ or "")
            yield f"### `{key}`\n\n{about}\n\n{_keys_table('', section)}"
            yield from _objects(f"{key}.", section)


def policy_rules() -> str:
    """A table of the policy pack's rules, with the level that each has until a team sets one."""
    rows = []
    for name, rule in RULES.items():
        settings = ", ".join(f"`{key}`: {value}" for key, value in rule.options.items())
        level = "mandatory" if rule.mandatory else "advisory"
        rows.append([f"`{name}`", rule.demand, level, settings, rule.fix])
    return _table(["rule", "what it demands", "level", "settings", "fix"], rows)


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
    return _table(head, rows)


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
    return _table(["", *(f"`{stack}`" for stack in STACKS)], rows)


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
    return _table(head, rows)


def report(name: str) -> str:
    """A recorded report of `vllm-spark plan`, as a quotation."""
    told = markdown(read_report(REPORTS / f"{name}.json"))
    return "\n".join(f"> {line}".rstrip() for line in told.splitlines())


def waits() -> str:
    """A table of everything that an `up` may wait for, with its limit."""
    ends, keeps = "it ends", "it ends; what was fetched is kept"
    rows: list[tuple[str, float, str]] = [
        ("one answer of the Docker daemon", connection.ANSWER_SECONDS, "1 s more, then it ends"),
        ("the pull of an image", pull.LIMIT_SECONDS, ends),
        ("the hub's list of a repository's files", 4 * fetch_weights.HUB_SECONDS, keeps),
        ("a download from which nothing arrives", fetch_weights.STALL_SECONDS, keeps),
        ("a whole download", fetch.LIMIT_SECONDS, keeps),
        ("the image's words on GPU and flags", image_check.PATIENCE_SECONDS, ends),
        ("the memory of a remote host", host.MEMORY_SECONDS, ends),
        (
            "a server that a takeover stops",
            preflight.TAKEOVER_STOP_SECONDS,
            "it ends; Docker goes on stopping that server",
        ),
        (
            "memory that the old server gives back",
            memory_wait.WAIT_SECONDS,
            "it ends; the old server is gone, and the next `up` creates the new one",
        ),
        ("/health and the list of models", Probe.quick, ends),
        ("the model's answer", Probe.patience, ends),
        ("a Docker daemon that went away", gate.DAEMON_PATIENCE_SECONDS, ends),
        ("Docker's record of a start that ended", container_watch.EVENTS_SECONDS, ends),
        ("the end of a start that failed in its log", gate.ENDS_BY_ITSELF_SECONDS, ends),
        (
            "a failed server that is stopped",
            container_watch.STOP_SECONDS,
            "it ends; Docker goes on stopping the server",
        ),
        ("the metrics of a server that has answered", 2 * metrics.PATIENCE_SECONDS, ends),
    ]
    cells = [[what, f"{limit:,.0f} s", after] for what, limit, after in rows]
    return _table(["wait for", "limit", "after Ctrl-C"], cells)


def plugin_differences() -> str:
    """What is left between the official docker plugin and the Python plugin of `offline/`."""
    known = yaml.safe_load((ROOT / "tests" / "offline" / "official.yaml").read_text())
    rows = [[row["what"], row["official"], row["ours"]] for row in known["differences"]]
    return _table(["", "official plugin", "Python plugin"], rows)


def program_help() -> str:
    """A code block: `vllm-spark --help`, and its output."""
    shown = CliRunner().invoke(main, ["--help"], prog_name="vllm-spark", terminal_width=100)
    return f"```console\n$ vllm-spark --help\n{shown.output.rstrip()}\n```"


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
    return _table(head, rows)


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
    return _table(["model", "loaded", "logged", "planned", "off", "source"], rows)


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
    return _table(["checkpoint", "weights", "cached layers", "remark"], rows)


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


def nvidia_images() -> str:
    """A table of NVIDIA's images and the vLLM release in each."""
    images = [
        [f"`{tag}-py3`", version or "the image is asked", DISPUTED.get(tag, "")]
        for tag, version in NGC_VERSIONS.items()
    ]
    return _table(["`nvcr.io/nvidia/vllm:`", "vLLM", "in doubt"], images)


def diagnoses(*logs: str) -> str:
    """A table of what `make diagnose` prints for these recorded logs (tests/data/logs)."""
    rows = []
    for log in logs:
        found = diagnose((ROOT / "tests" / "data" / "logs" / f"{log}.log").read_text().splitlines())
        rows.append([found.cause.replace("|", "&#124;"), (found.fix or "").replace("|", "&#124;")])
    return _table(["cause", "fix"], rows)


def gpu_errors() -> str:
    """A table of what Docker says where it gives no GPU, each with the fix for that host."""
    rows = []
    for known in yaml.safe_load((ROOT / "tests" / "data" / "gpu_access.yaml").read_text()):
        found = diagnose(known["said"].splitlines())
        said = known["said"].splitlines()[-1].rpartition("during container init: ")[2]
        fix = GpuOffer.of(known["info"]).fix(found.rule, known.get("gpus", "all")) or found.fix
        rows.append([known["name"], f"`{said}`", fix])
    return _table(["on this host", "Docker says", "fix"], rows)


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


def _keys_table(prefix: str, model: type[BaseModel]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        key = f"{prefix}:{field.alias or name}" if prefix else field.alias or name
        rows.append([f"`{key}`", _type(field.annotation), _default(field), field.description or ""])
    return _table(["key", "type", "default", "meaning"], rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    if isinstance(field.default, BaseModel):
        return "see below"
    if isinstance(field.default, EngineFlags):
        return "`{}`"
    value = str(field.default) if isinstance(field.default, IPv4Address) else field.default
    return f"`{json.dumps(value)}`"


_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    SecretStr: "secret",
    IPvAnyAddress: "IP address",
}


def _type(annotation: Any) -> str:
    """A type in words. The field's description covers the constraints that Annotated adds."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    if _section(annotation) is not None:
        return "object"
    if annotation is EngineFlags:
        return "object: any value by name"
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{member}`" for member in members)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(member) for member in members if member is not type(None))
    if origin is list:
        return f"list: {_type(members[0])}"
    if origin is dict:
        return f"object: {_type(members[1])} by name"
    if hasattr(annotation, "__metadata__"):
        return _type(members[0])
    return "any value"


def _section(annotation: Any) -> type[BaseModel] | None:
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    # A browser would read <stack> as an HTML tag.
    return "\n".join("| " + " | ".join(line).replace("<", "&lt;") + " |" for line in lines)

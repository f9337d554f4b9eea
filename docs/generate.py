"""Generates the parts of the documents that the program knows: config keys, plans, help.

The documents call these functions in comments. `make docs` runs the calls with cogapp and writes
the results below them. A unit test runs them again, so a document cannot differ from the program.
Every function returns Markdown.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Literal, Union, get_args, get_origin

from click.testing import CliRunner
from pydantic import BaseModel, IPvAnyAddress, SecretStr
from pydantic.fields import FieldInfo

from vllm_spark.cli.fit import flags_of, tried
from vllm_spark.cli.main import main
from vllm_spark.config.sections import NAMESPACE
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.deployment.review import plan_of
from vllm_spark.diagnosis.verdict import diagnose
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import NGC_VERSIONS
from vllm_spark.memory.misfits import problems_of
from vllm_spark.memory.plan import MemoryPlan
from vllm_spark.memory.report import table
from vllm_spark.project import ROOT

STACKS = ("spark", "qwen3-32b", "llama33-70b", "qwen3-vl-30b")
"""The stacks of the repository that need a GPU, the guide's first."""


def config_keys() -> str:
    """Every config key: a table of the top-level keys, then a table for each object."""
    parts = [_keys_table(NAMESPACE, Settings)]
    for name, field in Settings.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            key = f"{NAMESPACE}:{field.alias or name}"
            about = inspect.cleandoc(section.__doc__ or "")
            parts.append(f"### `{key}`\n\n{about}\n\n{_keys_table('', section)}")
    return "\n\n".join(parts)


def make_fit(stack: str) -> str:
    """A code block: `make fit` for a stack, and its output."""
    plan = table(_plan(stack), _settings(stack).model.id)
    return f"```console\n$ make fit STACK={stack}\n{plan}\n```"


def trials(stack: str, *engines: str) -> str:
    """A table of plans: the stack as it is, then the stack with each of these flags."""
    rows = []
    for engine in ("", *engines):
        plan = _plan(stack, engine)
        problems = problems_of(plan)
        rows.append(
            [
                f"`{engine}`" if engine else f"as in `Pulumi.{stack}.yaml`",
                f"{plan.pool_gib:.1f} GiB",
                f"{plan.kv_tokens:,}",
                f"{plan.full_length_sequences:.1f} of {plan.max_model_len:,}",
                f"{plan.headroom_gib:.1f} GiB",
                f"no: {problems[0].fix}" if problems else "yes",
            ]
        )
    head = ["flags", "KV cache", "tokens", "full sequences", "left to the host", "fits"]
    return _table(head, rows)


def comparison(measured: Mapping[str, str], *, source: str) -> str:
    """The models of the stacks side by side; `measured` has tokens/s by stack, from `source`."""
    plans = [_plan(stack) for stack in STACKS]
    read = [f"{plan.gigabytes_read_per_token:.2f} GB" for plan in plans]
    roofline = [f"{plan.roofline_tokens_per_second:.1f} tok/s" for plan in plans]
    rows = [
        ["parameters", *(f"{plan.shape.parameters / 1e9:.1f} billion" for plan in plans)],
        ["experts", *(_experts(plan) for plan in plans)],
        ["longest context", *(f"{plan.shape.positions:,}" for plan in plans)],
        ["weights", *(f"{plan.weights_gib:.1f} GiB" for plan in plans)],
        ["KV cache a token", *(f"{plan.kv_bytes_per_token:,} bytes" for plan in plans)],
        ["`gpu-memory-utilization`", *(f"{plan.limits.utilization}" for plan in plans)],
        ["KV cache", *(f"{plan.pool_gib:.1f} GiB" for plan in plans)],
        ["in tokens", *(f"{plan.kv_tokens:,}" for plan in plans)],
        ["full sequences", *(_sequences(plan) for plan in plans)],
        ["left to the host", *(f"{plan.headroom_gib:.1f} GiB" for plan in plans)],
        ["read for one token", *read],
        ["one stream, at most", *roofline],
        [f"one stream, measured {source}", *(measured.get(stack, "not yet") for stack in STACKS)],
    ]
    return _table(["", *(f"`{stack}`" for stack in STACKS)], rows)


def summary() -> str:
    """A table with a row for each stack."""
    rows = []
    for stack in STACKS:
        plan, model = _plan(stack), _settings(stack).model.id
        rows.append(
            [
                f"`{stack}`",
                model.partition("/")[2],
                f"{plan.kv_tokens:,}",
                _sequences(plan),
                f"{plan.roofline_tokens_per_second:.1f} tok/s",
            ]
        )
    head = ["stack", "model", "KV cache, tokens", "full sequences", "one stream, at most"]
    return _table(head, rows)


def program_help() -> str:
    """A code block: `vllm-spark --help`, and its output."""
    shown = CliRunner().invoke(main, ["--help"], prog_name="vllm-spark", terminal_width=100)
    return f"```console\n$ vllm-spark --help\n{shown.output.rstrip()}\n```"


def nvidia_images() -> str:
    """A table of NVIDIA's images and the vLLM release in each."""
    images = [[f"`{tag}-py3`", version] for tag, version in NGC_VERSIONS.items()]
    return _table(["`nvcr.io/nvidia/vllm:`", "vLLM"], images)


def diagnoses(*logs: str) -> str:
    """A table of what `make diagnose` prints for these recorded logs (tests/data/logs)."""
    rows = []
    for log in logs:
        found = diagnose((ROOT / "tests" / "data" / "logs" / f"{log}.log").read_text().splitlines())
        rows.append([found.cause.replace("|", "&#124;"), (found.fix or "").replace("|", "&#124;")])
    return _table(["cause", "fix"], rows)


def _settings(stack: str, engine: str = "") -> Settings:
    return tried(load_stack(stack_file(stack)), flags_of(engine))


def _plan(stack: str, engine: str = "") -> MemoryPlan:
    plan = plan_of(_settings(stack, engine))
    assert isinstance(plan, MemoryPlan), f"{stack} is not modelled: {plan.reason}"
    return plan


def _experts(plan: MemoryPlan) -> str:
    return f"{plan.shape.experts_per_token} a token" if plan.shape.experts_per_token else "none"


def _sequences(plan: MemoryPlan) -> str:
    return f"{plan.full_length_sequences:.1f} of {plan.max_model_len:,}"


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

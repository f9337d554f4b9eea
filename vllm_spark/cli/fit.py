"""`vllm-spark fit`: does a model fit? It answers before a download, a deployment or a config.

It plans a stack, or any model's config.json on a Spark. Flags, release and host from the command
line replace those of the stack, to try a change before it is made. It needs neither Pulumi nor
Docker.
"""

from __future__ import annotations

import io
import json
import math
import re
import shlex
from pathlib import Path

import click

from vllm_spark.cli.options import json_option
from vllm_spark.config.settings import Settings
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.deployment.review import misfits_with_model, plan_of
from vllm_spark.errors import ConfigError
from vllm_spark.flags.checks import check
from vllm_spark.flags.engine_flags import EngineFlags
from vllm_spark.images import Version
from vllm_spark.memory.limits import Machine
from vllm_spark.memory.misfits import problems_of, warnings_of
from vllm_spark.memory.model_checks import check_for_model
from vllm_spark.memory.model_config import read_config
from vllm_spark.memory.plan import MemoryPlan, make_plan
from vllm_spark.memory.report import output_of, table
from vllm_spark.memory.shape import ModelShape
from vllm_spark.problems import Problem, Unmodelled

_JSON_VALUE = re.compile(r"(--?[A-Za-z][\w.-]*=)?(?=[{\[])")
"""Where a JSON value may begin: at the start of a word, or after a flag and its equals sign."""

HOSTS = {"gb10": True, "discrete": False}
"""Whether GPU and host share one memory, by the value of `--host`."""


def _gib(_context: click.Context, _option: click.Parameter, gib: float | None) -> float | None:
    if gib is not None and not 0 < gib < math.inf:
        raise click.BadParameter(f"{gib} is not an amount of memory")
    return gib


def _release(_context: click.Context, _option: click.Parameter, text: str | None) -> Version | None:
    try:
        return Version.parse(text) if text else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(
    epilog="Exit codes: 0 it fits, may fit, or is not modelled; 1 it does not fit; 2 wrong input."
)
@click.option("--stack", help="A stack's name, as in Pulumi.<stack>.yaml.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Path of a model's config.json, of its folder, or of a file of models/ instead.",
)
@click.option("--engine", default="", help="vLLM's flags: --engine='--max-num-seqs 64'")
@click.option(
    "--memory-gib",
    type=float,
    callback=_gib,
    help="GiB of the machine; the stack's, or a Spark's, if not given.",
)
@click.option(
    "--host",
    type=click.Choice(list(HOSTS)),
    help="gb10, where GPU and host share one memory, or discrete; the memory decides if not given.",
)
@click.option(
    "--vllm", "version", metavar="RELEASE", callback=_release, help="vLLM's release, as in 0.28.0."
)
@json_option
def fit(
    stack: str | None,
    model: Path | None,
    engine: str,
    memory_gib: float | None,
    host: str | None,
    version: Version | None,
    as_json: bool,
) -> None:
    """Say whether a model fits: its weights, KV cache and run-time memory on this machine."""
    if (stack is None) == (model is None):
        raise click.UsageError("give either --stack or --model")
    flags = flags_of(engine)
    unified = HOSTS[host] if host else None
    if model is not None:
        machine = Machine(memory_gib=memory_gib or Machine.memory_gib, unified=unified)
        name, plan = str(model), _plan_model(model, flags, machine, version)
    else:
        name, plan = _plan_stack(str(stack), flags, memory_gib, unified, version)
    problems = problems_of(plan)
    if as_json:
        texts = {
            "problems": [str(problem) for problem in problems],
            "warnings": [str(doubt) for doubt in warnings_of(plan)],
        }
        click.echo(json.dumps({**output_of(plan), **texts}))
    else:
        click.echo(table(plan, name))
    if problems:
        raise click.exceptions.Exit(1)


def _plan_stack(
    stack: str,
    flags: EngineFlags,
    memory_gib: float | None,
    unified: bool | None,
    version: Version | None,
) -> tuple[str, MemoryPlan | Unmodelled]:
    settings = tried(load_stack(stack_file(stack)), flags, memory_gib, unified, version)
    _refuse(settings.engine, settings.image.version, misfits_with_model(settings))
    return settings.model.id, plan_of(settings)


def _plan_model(
    model: Path, flags: EngineFlags, machine: Machine, version: Version | None
) -> MemoryPlan | Unmodelled:
    shape = read_config(model)
    _refuse(flags, version, [])
    if isinstance(shape, ModelShape):
        # Only warnings: a stack's environment can lift these rules, and there is no stack here.
        for doubt in check_for_model(flags, shape, {}):
            click.echo(f"warning: {doubt}", err=True)
    return make_plan(shape, flags, machine, version)


def tried(
    settings: Settings,
    flags: EngineFlags,
    memory_gib: float | None = None,
    unified: bool | None = None,
    version: Version | None = None,
) -> Settings:
    """A stack's settings with these flags, this host and this release instead of its own.

    If only the memory is given, its size decides whether GPU and host share it.
    """
    if unified is None and memory_gib is not None:
        unified = Machine(memory_gib).is_unified
    host: dict[str, object] = {"memory_gib": memory_gib or settings.host.memory_gib}
    if unified is not None:
        host["unified"] = unified
    changes: dict[str, object] = {
        "engine": settings.engine.replaced_by(flags),
        "host": settings.host.model_copy(update=host),
    }
    if version is not None:
        changes["image"] = settings.image.model_copy(update={"vllm_version": str(version)})
    return settings.model_copy(update=changes)


def flags_of(text: str) -> EngineFlags:
    """The flags in a line of a command. ConfigError if it is not one.

    It is split like a shell command, but a JSON value needs no quotation marks around it: the
    user's shell has already removed one pair.
    """
    try:
        argv = _words(text)
    except ValueError as error:
        what, fix = f"{text!r}: {error}", "close every quotation mark"
        raise ConfigError([Problem("--engine", what, fix)]) from error
    return EngineFlags.from_argv(argv)


def _words(line: str) -> list[str]:
    """The words of a line. ValueError for a quotation mark that is not closed."""
    words: list[str] = []
    while line := line.lstrip():
        end = _end_of_json(line)
        if end is None:
            rest = io.StringIO(line)
            lexer = shlex.shlex(rest, posix=True)
            lexer.whitespace_split, lexer.commenters = True, ""
            words.append(lexer.get_token() or "")
            line = rest.read()
        else:
            words.append(line[:end])
            line = line[end:]
    return words


def _end_of_json(line: str) -> int | None:
    """The end of the JSON value at the start of the line; None if there is none."""
    if (found := _JSON_VALUE.match(line)) is None:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(line, found.end())
    except ValueError:
        return None
    return end if end == len(line) or line[end].isspace() else None


def _refuse(flags: EngineFlags, version: Version | None, misfits: list[Problem]) -> None:
    """ConfigError for flags that vLLM would refuse; warnings go to stderr."""
    checked = check(flags, version=version)
    if errors := checked.errors + misfits:
        raise ConfigError(errors)
    for doubt in checked.warnings:
        click.echo(f"warning: {doubt}", err=True)

"""`make fit`: will a model fit, before anything is downloaded, deployed or even configured?

It plans a stack (`--stack`), or any model's config.json (`--model`) on a Spark. Flags (`--engine`)
and memory given by hand replace those of the stack, so that a change can be tried before it is
made. It needs neither Pulumi nor Docker. Exit code 0 if the plan fits or the model is not modelled,
1 if it does not fit or the input is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap.steps import ROOT
from engine.fit import problems_of
from engine.flag_checks import check, check_length, check_quantization
from engine.flags import FlagValue, from_argv, normalised
from engine.images import Version
from engine.known_models import find_shape
from engine.limits import Host
from engine.memory_plan import MemoryPlan, make_plan
from engine.model_config import read_config
from engine.plan_report import output_of, table
from engine.problems import ConfigError, Problem
from engine.review import plan_of
from engine.settings import Settings, load_stack
from engine.shape import ModelShape
from engine.unmodelled import Unmodelled


def main(argv: Sequence[str]) -> int:
    """Print the plan; the exit code tells whether it fits."""
    arguments = _parser().parse_args(argv)
    try:
        name, plan = _plan(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    problems = problems_of(plan)
    if arguments.json:
        print(json.dumps({**output_of(plan), "problems": [str(problem) for problem in problems]}))
    else:
        print(table(plan, name))
    return 1 if problems else 0


def _plan(arguments: argparse.Namespace) -> tuple[str, MemoryPlan | Unmodelled]:
    flags = flags_of(arguments.engine)
    if arguments.stack is not None:
        stack = load_stack(ROOT / f"Pulumi.{arguments.stack}.yaml")
        settings = tried(stack, flags, arguments.memory_gib)
        model = settings.model
        shape = find_shape(model.id, model.revision, settings.cache.host_path)
        _check(settings.engine, shape, settings.image.version, settings.container.environment)
        return model.id, plan_of(settings)
    shape = read_config(arguments.model)
    _check(flags, shape, None, {})
    host = Host(memory_gib=arguments.memory_gib or Host.memory_gib)
    return str(arguments.model), make_plan(shape, flags, host)


def tried(
    settings: Settings, flags: Mapping[str, FlagValue], memory_gib: float | None = None
) -> Settings:
    """A stack's settings with these flags in place of its own, and with this memory."""
    memory = memory_gib or settings.host.memory_gib
    changes = {
        "engine": {**normalised(settings.engine), **flags},
        "host": settings.host.model_copy(update={"memory_gib": memory}),
    }
    return settings.model_copy(update=changes)


def flags_of(text: str) -> dict[str, FlagValue]:
    """The flags in a line as a shell reads it. ConfigError if it is not one."""
    try:
        argv = shlex.split(text)
    except ValueError as error:
        what, mend = f"{text!r}: {error}", "close every quotation mark"
        raise ConfigError([Problem("--engine", what, mend)]) from error
    return from_argv(argv)


def _check(
    flags: Mapping[str, FlagValue],
    shape: ModelShape | Unmodelled,
    version: Version | None,
    environment: Mapping[str, str],
) -> None:
    """ConfigError for flags that vLLM would refuse; what is only doubtful goes to stderr."""
    errors, doubts = check(flags, version=version)
    if isinstance(shape, ModelShape):
        errors += check_length(flags, shape.positions, environment)
        errors += check_quantization(flags, shape.quantization)
    if errors:
        raise ConfigError(errors)
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m operations.fit", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stack", help="a stack's name, as in Pulumi.<stack>.yaml")
    what.add_argument("--model", type=Path, help="path of a model's config.json")
    parser.add_argument("--engine", default="", help="vLLM's flags: --engine='--max-num-seqs 64'")
    parser.add_argument("--memory-gib", type=_gib, help="default: the stack's, or a Spark's")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def _gib(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not an amount of memory")
    return float(text)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main(sys.argv[1:]))

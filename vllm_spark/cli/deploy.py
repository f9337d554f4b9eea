"""`vllm-spark up`, `preview`, `down` and `env`: prepare the machine, then run Pulumi.

Plain `pulumi` does the same in a checkout whose environment is set up (`vllm-spark env` prints that
environment); no part of the deployment itself is in this module.
"""

from __future__ import annotations

import os
import shlex

import click

from vllm_spark.cli.options import stack_option
from vllm_spark.cli.plan import show_changes
from vllm_spark.cli.prepare import ensure_parts_of, ensure_pulumi
from vllm_spark.cli.pulumi_command import UP, Ended, run_pulumi, select
from vllm_spark.cli.rollback import after_failed_up
from vllm_spark.cli.status import show_drift
from vllm_spark.config.sections import Cache
from vllm_spark.config.stack_file import load_stack_if_ours, stack_file
from vllm_spark.docker_host.connection import connect, plugin_variables
from vllm_spark.setup.environment import exports
from vllm_spark.setup.steps import say


@click.command()
@stack_option
def up(stack: str) -> None:
    """Serve the stack; ends when the model has answered, or says why it will not."""
    deploy(stack)


@click.command()
@stack_option
def preview(stack: str) -> None:
    """Show what `up` would change; needs neither Docker nor a GPU."""
    load_stack_if_ours(stack_file(stack))
    ensure_pulumi()
    show_changes(stack, _run(stack, "preview", "--diff").events)
    show_drift(stack)


@click.command()
@stack_option
def down(stack: str) -> None:
    """Stop the stack's servers and remove them; the weights stay."""
    settings = load_stack_if_ours(stack_file(stack))
    ensure_pulumi()
    connect()
    _run(stack, "destroy", "--yes", "--refresh")
    if settings is not None:
        click.echo(f"The weights stay in {_place(settings.cache)}")


@click.command()
def env() -> None:
    """Print the exports under which plain `pulumi` works: eval "$(make -s env)"."""
    before = dict(os.environ)
    ensure_pulumi()
    for name, value in {**exports(before), **plugin_variables()}.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def deploy(stack: str) -> None:
    """Deploy. If that fails, print how to roll back, or roll back if the config says so.

    Exits with Pulumi's code where that is not 0.
    """
    settings = load_stack_if_ours(stack_file(stack))
    ensure_pulumi()
    ensure_parts_of(settings)
    _select(stack)
    ended = run_pulumi(*UP, stack=stack)
    if ended.code == 0:
        return
    if ended.interrupted:
        say(
            f"Interrupted. A container that was started goes on: make logs STACK={stack} follows "
            f"it, make stop STACK={stack} stops it. make up STACK={stack} goes on from here."
        )
    if not ended.locked and (settings is None or settings.state == "running"):
        after_failed_up(stack, settings, interrupted=ended.interrupted)
    raise click.exceptions.Exit(ended.code)


def _run(stack: str, *arguments: str) -> Ended:
    _select(stack)
    ended = run_pulumi(*arguments, stack=stack)
    if ended.code:
        raise click.exceptions.Exit(ended.code)
    return ended


def _select(stack: str) -> None:
    if code := select(stack):
        raise click.exceptions.Exit(code)


def _place(cache: Cache) -> str:
    if cache.volume is not None:
        return f"volume {cache.volume}; `docker volume rm {cache.volume}` removes them."
    return f"{cache.host_path}; they are files of this host."

"""`vllm-spark logs`, `stop` and `restart`: what Docker does by itself, for a server's container.

The next `up` notices: it makes a stopped server run again, and asks a restarted one whether it
answers. `vllm-spark:state: stopped` is for a server that shall stay stopped.
"""

from __future__ import annotations

import subprocess
from typing import Any

import click

from vllm_spark.cli.deploy import deploy
from vllm_spark.cli.options import server_option, stack_option
from vllm_spark.cli.prepare import require_pulumi
from vllm_spark.cli.servers import one_server
from vllm_spark.errors import SetupError


@click.command()
@stack_option
@server_option
def logs(stack: str, server: str | None) -> None:
    """Follow the log of the stack's server."""
    _docker(["logs", "--follow", "--tail", "200"], stack, server)


@click.command()
@stack_option
@server_option
def stop(stack: str, server: str | None) -> None:
    """Stop the server and free its memory; `up` starts it again."""
    _docker(["stop"], stack, server)


@click.command()
@stack_option
@server_option
def restart(stack: str, server: str | None) -> None:
    """Restart the server; ends when the model has answered."""
    _docker(["restart"], stack, server)
    deploy(stack)


def _docker(arguments: list[str], stack: str, only: str | None) -> None:
    require_pulumi()
    server = one_server(stack, only)
    if server is None:
        raise SetupError(f"stack {stack} is not up\n  fix: make up STACK={stack}")
    ended = run_docker([*arguments, server.container])
    if ended.returncode != 0:
        raise click.exceptions.Exit(ended.returncode)


def run_docker(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Docker's command line; `options` are those of subprocess.run. SetupError without one."""
    try:
        return subprocess.run(["docker", *arguments], check=False, text=True, **options)
    except FileNotFoundError:
        raise SetupError(
            "there is no `docker` here\n  fix: see your PATH, or install Docker's command line"
        ) from None

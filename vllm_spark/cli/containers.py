"""`vllm-spark logs`, `stop` and `restart`: Docker's commands for a server's container.

The next `up` starts a stopped server again, and checks whether a restarted one answers. To keep a
server stopped, set `vllm-spark:state: stopped`.
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
    """Run the docker CLI; `options` are those of subprocess.run. SetupError if it is missing."""
    try:
        return subprocess.run(["docker", *arguments], check=False, text=True, **options)
    except FileNotFoundError:
        raise SetupError(
            "there is no `docker` here\n  fix: see your PATH, or install Docker's command line"
        ) from None

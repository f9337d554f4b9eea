"""`vllm-spark plan --base REF`: what the working tree changes, stack by stack, before a merge.

It needs no Docker daemon, no plugin, no secret and no state. Its exit codes are made for a gate, so
that a mistake in the command never looks like a change. A preview ends with the same report, of
what differs from the last `up`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import click

from vllm_spark.changes.comparison import compare
from vllm_spark.changes.downtime import Records, downtime
from vllm_spark.changes.markdown import markdown
from vllm_spark.changes.plan import report_of
from vllm_spark.changes.report import Report
from vllm_spark.changes.revisions import resolve
from vllm_spark.changes.stack_version import as_deployed, read_stack
from vllm_spark.changes.trial_run import step_of
from vllm_spark.cli.options import json_option
from vllm_spark.cli.prepare import ensure_pulumi_cli
from vllm_spark.cli.pulumi_command import read_state
from vllm_spark.cli.servers import servers_of
from vllm_spark.config.stack_file import stack_file
from vllm_spark.deployment.last_good import LastGoodDeployment
from vllm_spark.errors import SetupError, VllmSparkError
from vllm_spark.project import ROOT
from vllm_spark.setup.environment import exports, has_backend

NOT_KNOWN = 1


class _Misused(click.UsageError):
    exit_code = NOT_KNOWN


class _Gate(click.Command):
    """A command whose exit code 2 says that something changes, and never that it was misused."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except click.UsageError as error:
            raise _Misused(error.message, error.ctx) from None


@click.command(
    cls=_Gate,
    epilog="Exit codes: 0 no change, 2 changes, 3 a changed stack is refused, 1 it is not known.",
)
@click.option("--base", required=True, metavar="REF", help="The commit to compare with.")
@click.option(
    "--run-base-code",
    is_flag=True,
    help="Run the base's own code for the base, and not this checkout's. Only for a REF you trust.",
)
@json_option
def plan(base: str, run_base_code: bool, as_json: bool) -> None:
    """Say what merging the working tree into REF would do, as Markdown."""
    try:
        commit = resolve(base)
        ensure_pulumi_cli()
        report = report_of(base, commit, run_base_code=run_base_code, records=_records)
    except VllmSparkError as error:
        click.echo(f"error: {error}", err=True)
        raise click.exceptions.Exit(NOT_KNOWN) from None
    if as_json:
        click.echo(report.json_text())
    else:
        click.echo(markdown(report, most_bytes=10**9), nl=False)
    raise click.exceptions.Exit(report.exit_code)


def show_changes(stack: str, events: Iterable[Mapping[str, Any]]) -> None:
    """Print what changes since the last `up`; nothing for a program that has its config elsewhere.

    `events` are those of the preview.
    """
    now = read_stack(stack_file(stack))
    servers = servers_of(stack)
    if now.settings is None or len(servers) > 1:
        return
    before = as_deployed(servers[0].settings, now) if servers else None
    steps = [
        step_of(planned["metadata"])
        for event in events
        if (planned := event.get("resourcePreEvent")) is not None
    ]
    change = compare(before, now)
    stacks = []
    if change.changes or any(step.operation != "same" for step in steps):
        done = downtime(steps, before, now, lambda: {stack: _good(stack)})
        stacks = [change.model_copy(update={"downtime": done})]
    report = Report(base="the last up", head=f"Pulumi.{now.name}.yaml", stacks=stacks)
    click.echo(markdown(report), nl=False)


def _good(stack: str) -> list[LastGoodDeployment]:
    return [*LastGoodDeployment.of_state(read_state(stack).get("resources", [])).values()]


def _records() -> Records:
    """The last good deployments of all stacks whose state can be read here."""
    if not has_backend():
        return {}
    try:
        os.environ.update(exports())
        command = ["pulumi", "stack", "ls", "--json", "--non-interactive"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        names = [stack["name"] for stack in json.loads(listed.stdout or "[]")]
        return {name: _good(name) for name in names}
    except (SetupError, ValueError):
        return {}

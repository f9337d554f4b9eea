"""`vllm-spark github`: the subcommands that workflows call. See docs/review.md."""

from __future__ import annotations

from typing import TextIO

import click

from vllm_spark.changes.report import Report
from vllm_spark.errors import ChangesError
from vllm_spark.github.api import Repository
from vllm_spark.github.artifact import report_of_run
from vllm_spark.github.drift_issue import keep_issue, read_drift
from vllm_spark.github.pull_request import Run, body_of, pull_request_of
from vllm_spark.github.pull_request import comment as keep_comment

_NO_REPORT = "There is no report: the job that makes it has failed."
_BAD_REPORT = "The report cannot be shown: it is not what `vllm-spark plan --json` prints."


@click.group()
def github() -> None:
    """In GitHub Actions: comment on a pull request, or keep an issue about drift."""


@github.command()
@click.option("--run", "run_id", type=int, required=True, help="The run that made the report.")
def comment(run_id: int) -> None:
    """Write a run's report into one comment on its pull request, or edit that comment."""
    repository = Repository.of_workflow()
    run = Run.of(repository.get(f"actions/runs/{run_id}"))
    number = pull_request_of(repository, run)
    if number is None:
        click.echo(f"no pull request, or more than one, is open with {run.head} as its head")
        return
    failure: ChangesError | None = None
    content: Report | str = _NO_REPORT
    try:
        content = report_of_run(repository, run_id) or _NO_REPORT
    except ChangesError as error:
        content, failure = _BAD_REPORT, error
    # Without changes a comment would be noise, unless an older one has become wrong.
    worth_it = isinstance(content, Report) and bool(content.stacks)
    done = keep_comment(repository, number, body_of(content, run, repository.page), new=worth_it)
    click.echo(f"pull request {number}: {done}")
    if failure is not None:
        raise failure


@github.command()
@click.argument("status", type=click.File(), default="-")
def drift(status: TextIO) -> None:
    """Open, edit or close the issue about a stack's drift. STATUS is from `status --json`."""
    click.echo(keep_issue(Repository.of_workflow(), read_drift(status.read())))

"""`vllm-spark model`: reads a model's sizes from the hub into models/, so that plans are exact.

It reads config.json, the quantisation file and the headers of the safetensors files. It downloads
no weights and needs no Docker.
"""

from __future__ import annotations

import re
import sys

import click

from vllm_spark.errors import HubError
from vllm_spark.memory.weights.hub import read_model
from vllm_spark.memory.weights.model_file import content_of, write
from vllm_spark.memory.weights.stored import ROLES
from vllm_spark.project import ROOT


@click.command(epilog="Exit codes: 0 written; 2 it could not be read, and nothing was written.")
@click.argument("model", metavar="ID")
@click.option("--revision", help="A commit, tag or branch; main if not given.")
def model(model: str, revision: str | None) -> None:
    """Write models/<name>.yaml for the model ID (owner/name) on the Hugging Face hub.

    HF_ENDPOINT, HF_TOKEN, a saved login, HF_HUB_OFFLINE and the hub's cache are honoured.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise HubError(
            f"{model!r} is not the id of a model\n    fix: write owner/name, such as "
            "openai/gpt-oss-120b"
        )
    read = read_model(model, revision, _show_progress)
    content, shape = content_of(read)
    path = write(content, ROOT / "models")
    stored = shape.stored
    assert stored is not None
    click.echo(f"{path.relative_to(ROOT)}: {model} at {read.commit[:12]}")
    for role in ROLES:
        if formats := stored.by_role.get(role):
            detail = ", ".join(f"{name} {size:,}" for name, size in sorted(formats.items()))
            click.echo(f"  {role:<10}{stored.role(role) / 2**30:>9.2f} GiB   {detail}")
    click.echo(f"  {'in all':<10}{stored.total / 2**30:>9.2f} GiB")
    click.echo(f"Plan it with `make fit MODEL={path.relative_to(ROOT)}`.")


def _show_progress(done: int, total: int) -> None:
    """One line on a terminal, overwritten; nothing elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        click.echo(f"\rread {done} of {total} headers{end}", err=True, nl=False)

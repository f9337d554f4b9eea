"""`vllm-spark`: the subcommands, and the one place that turns errors into messages and exit codes.

Exit codes, of every subcommand unless its help says otherwise:

    0    done, or the answer is yes
    1    failed, or the answer is no
    2    the answer is not known: a wrong option, an invalid config, no Docker daemon
    130  interrupted by Ctrl-C
"""

from __future__ import annotations

import errno
import io
import signal
import sys
from typing import NoReturn

import click

from vllm_spark import __version__
from vllm_spark.cli.caches import caches
from vllm_spark.cli.containers import logs, restart, stop
from vllm_spark.cli.deploy import down, env, preview, up
from vllm_spark.cli.diagnose import diagnose
from vllm_spark.cli.fit import fit
from vllm_spark.cli.model import model
from vllm_spark.cli.plan import plan
from vllm_spark.cli.rollback import rollback
from vllm_spark.cli.status import status
from vllm_spark.docker_host.connection import docker_errors
from vllm_spark.errors import VllmSparkError
from vllm_spark.github.commands import github

_OWNER = "`sudo chown -R $USER .` if this folder is yours: a `sudo make` leaves files of root"
_DISK = "free some disk: `df -h . ~ /tmp` shows what is left"
_FILE_FIXES = {
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EROFS: "work in a folder that can be written",
}
"""What to do if a file of the project cannot be written or read, by the system's error number."""


class _Commands(click.Group):
    """Prints an expected error of any subcommand as text, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            with docker_errors():
                return super().invoke(ctx)
        except VllmSparkError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno not in _FILE_FIXES:
                raise
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            click.echo(f"error: {what}\n  fix: {_FILE_FIXES[error.errno]}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("Interrupted; `make status` tells what serves.", err=True)
            ctx.exit(130)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, or yes; 1 failed, or no; 2 it could not be found out; 130 Ctrl-C.",
)
@click.version_option(__version__, prog_name="vllm-spark")
def main() -> None:
    """Serve LLMs with vLLM on a DGX Spark, each from the config of a Pulumi stack."""


for command in (
    up,
    preview,
    plan,
    down,
    rollback,
    status,
    logs,
    stop,
    restart,
    caches,
    fit,
    model,
    diagnose,
    env,
    github,
):
    main.add_command(command)


def run() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` must not be an error
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(main(prog_name="vllm-spark"))

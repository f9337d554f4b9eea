"""Runs `vllm-spark` in this process, with a command line as a user types it."""

from __future__ import annotations

from click.testing import CliRunner, Result

from vllm_spark.cli.main import main


def vllm_spark(*arguments: str) -> Result:
    """The exit code, and the output on `stdout` and on `stderr`."""
    return CliRunner().invoke(main, list(arguments), prog_name="vllm-spark", catch_exceptions=False)

"""`vllm-spark diagnose`: why did this vLLM not start? For any log that somebody has."""

from __future__ import annotations

import codecs
import io
import json
import sys
from collections.abc import Iterable

import click

from vllm_spark.cli.options import json_option
from vllm_spark.diagnosis.verdict import Diagnosis
from vllm_spark.diagnosis.verdict import diagnose as diagnosis_of

EXIT_CODES = {"healthy": 0, "failed": 1, "unknown": 3}
_UNREADABLE = 2


@click.command(epilog="Exit codes: 0 healthy, 1 failed, 3 unknown, 2 when the log cannot be read.")
@click.argument("log")
@json_option
def diagnose(log: str, as_json: bool) -> None:
    """Say why a vLLM server did not start, from its LOG.

    LOG is a saved log (docker logs NAME > file 2>&1), or - for standard input.
    """
    try:
        found = _diagnose(log)
    except OSError as problem:
        click.echo(
            f"error: cannot read the log {log}: {problem.strerror}\n"
            "  fix: save one with `docker logs NAME > file 2>&1`, or pipe it in with LOG=-",
            err=True,
        )
        raise click.exceptions.Exit(_UNREADABLE) from None
    click.echo(as_object(found) if as_json else as_text(found))
    raise click.exceptions.Exit(EXIT_CODES[found.verdict])


def as_object(found: Diagnosis) -> str:
    """One object: verdict, cause, fix, evidence."""
    return json.dumps(
        {
            "verdict": found.verdict,
            "cause": found.cause,
            "fix": found.fix,
            "evidence": list(found.evidence),
        },
        ensure_ascii=False,
    )


def as_text(found: Diagnosis) -> str:
    """Readable at midnight: what, what to do, why I say so."""
    parts = [f"{found.verdict}: {found.cause}"]
    if found.fix:
        parts.append(f"fix: {found.fix}")
    if found.evidence:
        parts.append("the log says:\n" + "\n".join(f"    {line}" for line in found.evidence))
    return "\n\n".join(parts)


def _diagnose(name: str) -> Diagnosis:
    with open(sys.stdin.fileno() if name == "-" else name, "rb") as log:  # noqa: PTH123
        return diagnosis_of(_lines(log))


def _lines(log: io.BufferedReader) -> Iterable[str]:
    """Whatever the bytes are: a log is cut anywhere, and PowerShell's `>` writes UTF-16."""
    wide = log.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if wide else "utf-8-sig"
    text = io.TextIOWrapper(log, encoding=encoding, errors="replace", newline="\n")
    return (line.rstrip("\n") for line in text)

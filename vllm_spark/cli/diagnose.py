"""`vllm-spark diagnose`: says why a vLLM did not start, or died, from any saved log."""

from __future__ import annotations

import codecs
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click
from docker.errors import NotFound

from vllm_spark.cli.options import json_option
from vllm_spark.deployment.tenants import STACK_LABEL
from vllm_spark.diagnosis.commands import changes_in, for_stack, for_vllm
from vllm_spark.diagnosis.verdict import Diagnosis
from vllm_spark.diagnosis.verdict import diagnose as diagnosis_of
from vllm_spark.docker_host.connection import connect, docker_errors, resolve
from vllm_spark.errors import DockerRefused

EXIT_CODES = {"healthy": 0, "failed": 1, "unknown": 3}
_UNREADABLE = 2
_KERNEL_SECONDS = 10.0
_KERNEL_WORDS = re.compile(
    r"NVRM|critical temperature"
    r"|Killed process \d+ \((?:VLLM|vllm|EngineCor|python|pt_main|ray)"  # not a browser
)


@click.command(epilog="Exit codes: 0 healthy, 1 failed, 3 unknown, 2 when the log cannot be read.")
@click.argument("log", required=False)
@click.option("--container", help="Read this container's log and Docker's state of it.")
@click.option("--stack", help="Give the commands for the config of this stack.")
@json_option
def diagnose(log: str | None, container: str | None, stack: str | None, as_json: bool) -> None:
    """Say why a vLLM server did not start, or died, from its LOG.

    LOG is a saved log (docker logs NAME > file 2>&1), a part of one that somebody pasted, or - for
    standard input. With --container no LOG is needed.
    """
    if (log is None) == (container is None):
        raise click.UsageError("give a LOG, or --container NAME (one of the two)")
    notes: tuple[str, ...] = ()
    if container is not None:
        found, notes, its_stack = _of_container(container)
        stack = stack or its_stack
    else:
        found = _of_file(str(log))
    click.echo(as_object(found, stack) if as_json else as_text(found, stack, notes))
    raise click.exceptions.Exit(EXIT_CODES[found.verdict])


def as_object(found: Diagnosis, stack: str | None = None) -> str:
    """One object: verdict, cause, fix, evidence; commands and issue if there are any."""
    said = {
        "verdict": found.verdict,
        "cause": found.cause,
        "fix": found.fix,
        "evidence": list(found.evidence),
    }
    if commands := _commands(found, stack):
        said["commands"] = commands
    if found.issue:
        said["issue"] = found.issue
    return json.dumps(said, ensure_ascii=False)


def as_text(found: Diagnosis, stack: str | None = None, notes: Iterable[str] = ()) -> str:
    """Readable at midnight: what happened, what to do, which lines prove it."""
    parts = [f"{found.verdict}: {found.cause}"]
    if found.fix:
        parts.append(f"fix: {found.fix}")
    if commands := _commands(found, stack):
        parts.append("to paste:\n" + "\n".join(f"    {line}" for line in commands))
    if found.evidence:
        parts.append("the log says:\n" + "\n".join(f"    {line}" for line in found.evidence))
    if about := tuple(notes):
        parts.append("Docker says:\n" + "\n".join(f"    {line}" for line in about))
    if found.issue:
        parts.append(
            "This failure is not in the catalogue. Please report it: check this text for private"
            f" words, then open an issue with it.\n\n{found.issue}"
        )
    return "\n\n".join(parts)


def _commands(found: Diagnosis, stack: str | None) -> list[str]:
    changes = changes_in(found.fix) if found.verdict == "failed" else []
    if stack is None:
        return [for_vllm(change) for change in changes]
    return [for_stack(change, stack) for change in changes]


def _of_file(name: str) -> Diagnosis:
    try:
        with open(sys.stdin.fileno() if name == "-" else name, "rb") as log:  # noqa: PTH123
            return diagnosis_of(_lines(log))
    except OSError as problem:
        click.echo(
            f"error: cannot read the log {name}: {problem.strerror}\n"
            "  fix: save one with `docker logs NAME > file 2>&1`, or pipe it in with LOG=-",
            err=True,
        )
        raise click.exceptions.Exit(_UNREADABLE) from None


def _lines(log: io.BufferedReader) -> Iterable[str]:
    """Decode any bytes: a log may be cut anywhere, and PowerShell's `>` writes UTF-16."""
    wide = log.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if wide else "utf-8-sig"
    text = io.TextIOWrapper(log, encoding=encoding, errors="replace", newline="\n")
    return (line.rstrip("\n") for line in text)


def _of_container(name: str) -> tuple[Diagnosis, tuple[str, ...], str | None]:
    """The verdict on a container's log with Docker's state, that state in words, and its stack.

    DockerUnavailable if no daemon answers, DockerRefused for a container that is not there or whose
    log Docker does not keep.
    """
    with docker_errors():
        try:
            container = connect().containers.get(name)
        except NotFound:
            raise DockerRefused(
                f"there is no container {name}\n  fix: `docker ps --all` lists them"
            ) from None
        state: dict[str, Any] = container.attrs["State"]
        log = container.logs(stream=True)
        lines = [*_decoded(log), *_of_kernel(state)]
    ended = None if state.get("Running") else int(state.get("ExitCode") or 0)
    never = str(state.get("StartedAt", "")).startswith("0001-")
    if state.get("Error"):
        lines.append(f"Error response from daemon: {state['Error']}")
    found = diagnosis_of(
        lines,
        exit_code=None if never else ended,
        oom_killed=bool(state.get("OOMKilled")),
    )
    return found, _state_in_words(container.attrs), container.labels.get(STACK_LABEL)


def _decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    """Docker cuts a log into chunks at any byte."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from whole
    if rest:
        yield rest


def _state_in_words(attrs: dict[str, Any]) -> tuple[str, ...]:
    state, restarts = attrs["State"], int(attrs.get("RestartCount") or 0)
    words = [f"state {state.get('Status')}, exit code {state.get('ExitCode')}"]
    if state.get("OOMKilled"):
        words.append("OOMKilled: the kernel killed a process of the container for memory")
    if restarts:
        words.append(f"Docker has restarted it {restarts} times")
    if state.get("Error"):
        words.append(f"error: {state['Error']}")
    return tuple(words)


def _of_kernel(state: dict[str, Any]) -> list[str]:
    """The kernel's log lines since the start in this boot, if this user may read them.

    Empty for a daemon on another machine: its kernel's log is not here.
    """
    if not resolve().is_local_socket:
        return []
    started = str(state.get("StartedAt", ""))[:19].replace("T", " ")
    command = ["journalctl", "-k", "-b", "--no-pager", "-o", "short", "--utc", "--since"]
    try:
        asked = subprocess.run(
            [*command, f"{started} UTC"], capture_output=True, timeout=_KERNEL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []  # no systemd, or too slow: the container's log must be enough
    lines = asked.stdout.decode("utf-8", "replace").splitlines()
    return [line for line in lines if _KERNEL_WORDS.search(line)]

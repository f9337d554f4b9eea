"""Runs `pulumi` in the foreground, and explains some of its failures after its last message.

Pulumi's output is passed through. Pulumi reads a copy of the stack's config file, because it writes
the salt of the state's secrets into that file, which git tracks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vllm_spark.config.stack_file import for_pulumi, stack_file
from vllm_spark.docker_host.connection import plugin_variables, preview_variables
from vllm_spark.errors import SetupError
from vllm_spark.project import ROOT
from vllm_spark.setup.steps import say

UP = ("up", "--yes", "--skip-preview", "--refresh", "--suppress-outputs")
"""Without the outputs: after a failure Pulumi would list all of them as removed, below the cause. A
good `up` ends with an announcement."""


@dataclass(frozen=True)
class Ended:
    """How a run of `pulumi` ended. `events` are those of Pulumi's engine, in order."""

    code: int
    interrupted: bool = False
    locked: bool = False
    events: Sequence[Mapping[str, Any]] = field(default=(), repr=False)


def run_pulumi(*arguments: str, stack: str, config: str | None = None) -> Ended:
    """Run it on the stack, in the foreground; prints what a lock or a wrong passphrase means.

    `config` is the text of a config file to use instead of the stack's.
    """
    with _beside(stack, config) as file:
        log = file.with_name("events")
        given = ["--stack", stack, "--config-file", str(file), "--event-log", str(log)]
        ended = _run([*arguments, *given], stack)
        ended = replace(ended, events=[*_events(log)])
    # Seen once: a plugin that ended early, "**failed** 1 error", and exit code 0.
    if ended.code == 0 and (error := _first_error(ended.events)) is not None:
        say(f"Pulumi ended with exit code 0 after an error: {error}\n  fix: repeat the command")
        return replace(ended, code=1)
    return ended


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """The events in a log of Pulumi's engine, a JSON object a line; none if it wrote no log."""
    for line in log.read_text().splitlines() if log.exists() else ():
        with suppress(ValueError):  # the last line, if Pulumi was killed
            yield json.loads(line)


def _first_error(events: Iterable[Mapping[str, Any]]) -> str | None:
    """The message of the first error; None if there is none."""
    for event in events:
        if (told := event.get("diagnosticEvent") or {}).get("severity") == "error":
            return str(told["message"]).strip()
        if "resOpFailedEvent" in event:
            return f"{event['resOpFailedEvent']['metadata']['urn']} failed"
    return None


def _run(arguments: list[str], stack: str) -> Ended:
    interrupts: list[int] = []
    # The terminal sends the signal to Pulumi too, which ends in order. If this process died of it,
    # it would kill Pulumi: the lock would stay, and running operations would be lost.
    before = signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
    told = []
    daemon = preview_variables() if arguments[0] == "preview" else plugin_variables()
    try:
        with subprocess.Popen(
            ["pulumi", *arguments],
            cwd=ROOT,
            # The variable makes the flag --event-log known.
            env={**os.environ, **daemon, "PULUMI_DEBUG_COMMANDS": "true"},
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                told.append(line.decode(errors="replace"))
                sys.stderr.write(told[-1])
                sys.stderr.flush()
    finally:
        signal.signal(signal.SIGINT, before)
    lock = _lock("".join(told), stack)
    if lock:
        say(lock)
    _explain_passphrase("".join(told), stack)
    return Ended(process.returncode, bool(interrupts), lock is not None)


_PASSPHRASE = (
    "The secrets in {file}, or those in the state of {stack}, were encrypted with another "
    "passphrase.\n  fix: set PULUMI_CONFIG_PASSPHRASE to it. If it is lost and the state is yours "
    "alone, set each secret again: pulumi config set --secret"
)


def _explain_passphrase(told: str, stack: str) -> None:
    if "incorrect passphrase" in told:
        say(_PASSPHRASE.format(file=stack_file(stack).name, stack=stack))


@contextmanager
def _beside(stack: str, config: str | None = None) -> Iterator[Path]:
    """The stack's config, or `config`, in a folder beside a copy of Pulumi.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "Pulumi.yaml", folder)
        copy = Path(folder) / stack_file(stack).name
        copy.write_text(for_pulumi(stack_file(stack)) if config is None else config)
        yield copy


def select(stack: str) -> int:
    """Select the stack, or create it; returns Pulumi's exit code."""
    command = ["pulumi", "stack", "select", "--", stack]
    selected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "no stack named" in selected.stderr:
        with _beside(stack) as file:
            create = ["pulumi", "stack", "init", "--no-select", "--", stack]
            made = subprocess.run(
                create, cwd=file.parent, stderr=subprocess.PIPE, text=True, check=False
            )
        sys.stderr.write(made.stderr)
        _explain_passphrase(made.stderr, stack)
        if made.returncode != 0:
            return made.returncode
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    sys.stderr.write(selected.stderr)
    return selected.returncode


def read_state(stack: str) -> dict[str, Any]:
    """The stack's state, with encrypted secrets; empty if there is no such stack. Takes no lock.

    SetupError if it cannot be read.
    """
    exported = subprocess.run(
        ["pulumi", "stack", "export", "--stack", stack],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if exported.returncode != 0:
        if "no stack named" in exported.stderr:
            return {}
        raise SetupError(f"cannot read the state of stack {stack}: {exported.stderr.strip()}")
    deployment: dict[str, Any] = json.loads(exported.stdout)["deployment"]
    return deployment


_LOCKED = ("is currently locked by", "Another update is currently in progress")
"""The messages of file and bucket backends, and of Pulumi Cloud."""


def _lock(told: str, stack: str) -> str | None:
    """What to do about a locked stack; None if Pulumi reported no lock."""
    if not any(words in told for words in _LOCKED):
        return None
    cancel = f'eval "$(make -s env)" && pulumi cancel --yes --stack {stack}'
    holder = re.search(r"created by \S*@(\S+) \(pid (\d+)\) at (\S+)", told)
    if holder is None:
        return f"Another run holds stack {stack}. Wait for it; if it was killed:\n  {cancel}"
    host, pid, since = holder.groups()
    if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
        return (
            f"The run that holds stack {stack} since {since} was killed: there is no process {pid} "
            f"any more.\n  fix: {cancel}\n  then repeat"
        )
    return (
        f"Another run holds stack {stack} since {since}: process {pid} on {host}. Nothing was "
        f"changed by this one.\n  fix: wait for it, then repeat; only if it was killed: {cancel}"
    )

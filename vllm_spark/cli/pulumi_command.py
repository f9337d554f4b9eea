"""Runs `pulumi` in the foreground, and explains a lock or an interruption after its last message.

Pulumi's output is passed through; only standard error is read as well, because only there Pulumi
reports a locked stack.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_spark.docker_host.connection import plugin_variables, preview_variables
from vllm_spark.errors import SetupError
from vllm_spark.project import ROOT
from vllm_spark.setup.steps import say

UP = ("up", "--yes", "--skip-preview", "--refresh")


@dataclass(frozen=True)
class Ended:
    """How a run of `pulumi` ended."""

    code: int
    interrupted: bool = False
    locked: bool = False


def run_pulumi(*arguments: str, stack: str) -> Ended:
    """Run it on the stack, in the foreground; prints the meaning of a lock or of Ctrl-C."""
    interrupts: list[int] = []
    # The terminal sends the signal to Pulumi too, which ends in order. If this process died of it,
    # it would kill Pulumi: the lock would stay, and running operations would be lost.
    before = signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
    told = []
    daemon = preview_variables() if arguments[0] == "preview" else plugin_variables()
    try:
        with subprocess.Popen(
            ["pulumi", *arguments, "--stack", stack],
            cwd=ROOT,
            env={**os.environ, **daemon},
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
    return Ended(process.returncode, bool(interrupts), lock is not None)


def select(stack: str) -> int:
    """Select the stack, or create it; returns Pulumi's exit code."""
    command = ["pulumi", "stack", "select", "--create", "--", stack]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


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

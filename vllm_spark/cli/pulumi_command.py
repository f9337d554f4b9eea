"""Runs `pulumi` as a person does, and says in plain words what its last message leaves open.

Its output goes where it always goes; only standard error is read on its way, because that a stack
is locked is said there and nowhere else.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """Run it on the stack, in the foreground; what a lock or Ctrl-C means is said here."""
    interrupts: list[int] = []
    # Pulumi has the same signal from the terminal, and ends in order. Dying of it here would kill
    # Pulumi: its lock would stay, and what it has begun would be lost.
    before = signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
    told = []
    try:
        with subprocess.Popen(
            ["pulumi", *arguments, "--stack", stack], cwd=ROOT, stderr=subprocess.PIPE
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
    """Select the stack, which is created if there is none; Pulumi's exit code."""
    command = ["pulumi", "stack", "select", "--create", "--", stack]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def read_state(stack: str) -> dict[str, Any]:
    """The stack's state, secrets encrypted; empty if there is no such stack. Nothing is locked.

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
"""In the words of backends of files and buckets, and of Pulumi Cloud."""


def _lock(told: str, stack: str) -> str | None:
    """What to do about a locked stack; None if nothing was said of a lock."""
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

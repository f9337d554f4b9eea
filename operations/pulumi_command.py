"""Runs `pulumi` as a person does, and says in plain words what its own last words leave open.

Its output goes where it always goes; only standard error is read on its way, because that a stack
is locked is told there and nowhere else.
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

import docker
from docker.errors import NotFound

from bootstrap.steps import ROOT, Unready, say


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


def run_up(*arguments: str, stack: str) -> Ended:
    """`pulumi up`, and once more if a killed run has left a container in its way."""
    up = run_pulumi(*_UP, *arguments, stack=stack)
    if up.code == 0 or up.locked or up.interrupted or not _removed_half_made(stack):
        return up
    return run_pulumi(*_UP, *arguments, stack=stack)


_UP = ("up", "--yes", "--skip-preview", "--refresh")


def read_state(stack: str) -> dict[str, Any]:
    """The stack's state, secrets encrypted; nothing is locked by that. Unready if it is not had."""
    exported = subprocess.run(
        ["pulumi", "stack", "export", "--stack", stack],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if exported.returncode != 0:
        raise Unready(f"cannot read the state of stack {stack}: {exported.stderr.strip()}")
    deployment: dict[str, Any] = json.loads(exported.stdout)["deployment"]
    return deployment


def _removed_half_made(stack: str) -> bool:
    """Remove a container that a killed run made and could not write down any more.

    The state tells: it was being created, and is not there. Docker would refuse another container
    of that name for ever.
    """
    state = read_state(stack)
    recorded = {resource.get("id") for resource in state.get("resources", [])}
    removed = False
    for operation in state.get("pending_operations") or ():
        resource: dict[str, Any] = operation["resource"]
        if (operation["type"], resource["type"]) != ("creating", _CONTAINER):
            continue
        name, api = resource["inputs"]["name"], docker.from_env().api
        try:
            if api.inspect_container(name)["Id"] in recorded:
                continue
            api.remove_container(name, force=True)
        except NotFound:
            continue
        say(f"Container {name} was made by a run that was killed meanwhile: removed; once more.")
        removed = True
    return removed


_CONTAINER = "docker:index/container:Container"


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
            f"any more.\n  mend: {cancel}\n  then repeat"
        )
    return (
        f"Another run holds stack {stack} since {since}: process {pid} on {host}. Nothing was "
        f"changed by this one.\n  mend: wait for it, then repeat; only if it was killed: {cancel}"
    )

"""The substitute for the `command` plugin: `command:local:Command`, a command with a lifecycle.

Like the official plugin, it runs `create` once, `update` (or `create` again) when an input has
changed, and `delete` when the resource is deleted. It shows each line of output as it arrives, and
makes the outputs secret if any input is secret. If a command fails, the resource fails with the
command's output. Not covered: `command:remote`, `assetPaths` and `archivePaths`.
"""
# ruff: noqa: ARG002  the Resource interface fixes the arguments

from __future__ import annotations

import os
import subprocess
import threading
from secrets import token_hex
from typing import IO, ClassVar, NoReturn

from pulumi.runtime.rpc import UNKNOWN

from offline.plugins.protocol import Plugin, serve
from offline.plugins.resource import Input, Refusal, Resource, Say, State


class Command(Resource):
    """A command on the machine that runs Pulumi."""

    type = "command:local:Command"
    inputs: ClassVar = {
        "create": Input(),
        "update": Input(),
        "delete": Input(),
        "triggers": Input(replaces=True),
        "environment": Input(),
        "stdin": Input(),
        "dir": Input(),
        "interpreter": Input(),
        "logging": Input(),
    }
    outputs = ("stdout", "stderr")

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._cancelled = threading.Event()

    def planned(self, old: State | None, new: State) -> State:
        """The outputs are unknown: every run may print something else."""
        return new | dict.fromkeys(self.outputs, UNKNOWN)

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Run `create`."""
        return token_hex(8), new | self._run(new.get("create"), new, {}, say)

    def read(self, id: str, state: State) -> tuple[str, State]:
        """Return the state unchanged: a command leaves nothing to inspect."""
        return id, state

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Run `update`, or `create` if there is no `update`."""
        return new | self._run(new.get("update") or new.get("create"), new, old, say)

    def delete(self, id: str, state: State, say: Say) -> None:
        """Run `delete`."""
        self._run(state.get("delete"), state, state, say)

    def cancel(self) -> None:
        """Kill the running commands."""
        self._cancelled.set()
        for process in tuple(self._running):
            process.kill()

    def _run(self, command: str | None, inputs: State, previous: State, say: Say) -> State:
        """Run `command` and return its output. It finds the previous output in its environment.

        Refusal if it cannot be started or its exit status is not 0.
        """
        last = {name: previous.get(name) or "" for name in self.outputs}
        if not command:
            return last
        environment = {f"PULUMI_COMMAND_{name.upper()}": text for name, text in last.items()}
        try:
            process = subprocess.Popen(
                [*(inputs.get("interpreter") or ("/bin/sh", "-c")), command],
                cwd=inputs.get("dir"),
                env=os.environ
                | (inputs.get("environment") or {})
                | {name: text for name, text in environment.items() if text},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise Refusal(f"{error.strerror}: {error.filename}: running {command!r}") from error
        self._running.add(process)
        both: list[str] = []
        logged = inputs.get("logging") or "stdoutAndStderr"
        printed: dict[str, list[str]] = {name: [] for name in self.outputs}

        def follow(name: str, stream: IO[str]) -> None:
            for line in stream:
                printed[name].append(line)
                both.append(line)
                if name in logged.lower():
                    say(line.rstrip("\n"))

        readers = [
            threading.Thread(target=follow, args=(name, getattr(process, name)), daemon=True)
            for name in self.outputs
        ]
        for reader in readers:
            reader.start()
        assert process.stdin is not None
        try:
            process.stdin.write(inputs.get("stdin") or "")
            process.stdin.close()
        except BrokenPipeError:
            pass  # the command does not read its input
        code = process.wait()
        for reader in readers:
            reader.join(None if not self._cancelled.is_set() else 1)
        self._running.discard(process)
        if code:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            raise Refusal(f"{how}: running {command!r}:\n{''.join(both)}")
        return {name: "".join(lines).removesuffix("\n") for name, lines in printed.items()}


class CommandPlugin(Plugin):
    """The provider `command`."""

    name = "command"
    accepts_secrets = True


def main(version: str) -> NoReturn:
    """Serve the Pulumi engine that started this process."""
    serve(lambda engine: CommandPlugin(version, [Command()], engine))

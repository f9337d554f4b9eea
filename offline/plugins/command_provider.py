"""The `command` plugin's stand-in: `command:local:Command`, a shell command with a lifecycle.

Like the official one it runs `create` once, runs `update` (or again `create`) when an input has
changed, `delete` when the resource goes, shows each line of output as it comes, and makes an
output secret when any input is. A command that fails fails the resource, with all it printed.
Not covered: `command:remote`, `assetPaths` and `archivePaths`.
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
        """Any run may print something else."""
        return new | dict.fromkeys(self.outputs, UNKNOWN)

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Run `create`."""
        return token_hex(8), new | self._run(new.get("create"), new, {}, say)

    def read(self, id: str, state: State) -> tuple[str, State]:
        """A command leaves nothing that could be looked at."""
        return id, state

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Run `update`, or `create` where there is none."""
        return new | self._run(new.get("update") or new.get("create"), new, old, say)

    def delete(self, id: str, state: State, say: Say) -> None:
        """Run `delete`."""
        self._run(state.get("delete"), state, state, say)

    def cancel(self) -> None:
        """Kill what runs."""
        self._cancelled.set()
        for process in tuple(self._running):
            process.kill()

    def _run(self, command: str | None, inputs: State, previous: State, say: Say) -> State:
        """Run `command`; return what it printed. The last output is in its environment."""
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
            pass  # it did not care for its input
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
    """Serve the engine that started this process."""
    serve(lambda engine: CommandPlugin(version, [Command()], engine))

"""A copy of the program with its own stack, driven by the real `pulumi` as a user drives it.

It is a copy, so that no test touches the stacks, the state or the config files of the checkout. It
has its own port and container name, so that a server of the checkout may run at the same time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from vllm_spark.setup.environment import exports

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("Pulumi.yaml", "__main__.py", "components", "vllm_spark", "models")

UP = ("up", "--yes", "--skip-preview", "--refresh")
"""As `make up` calls it."""

LOADS_LONG = {"log": "/fake/30b_guide_warm.timed.jsonl", "speed": "100", "load": "60"}
LOADS_LONG_PHASE = "starting the server"
"""Switches of a fake server that stays in a phase of its start, and the gate's name of that phase.
"""

GUIDE_IMAGE = "nvcr.io/nvidia/vllm:25.09-py3"
"""The image of stack `spark`; the fixture `guide_image` leaves one of this name."""

FAKE_IMAGE = "vllm/vllm-openai-cpu:v0.32.0-fake"
"""What the fixture `fake_image` builds."""


# A process that a script starts in the background ignores SIGINT, and so do its children. Pulumi
# ends its plugins by that signal, so every command would wait 5 s for them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Run:
    """What a command printed, and its exit code."""

    code: int
    output: str


def free_port() -> int:
    """A port that stays free while a server is stopped: not one of the ephemeral ports."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


class Underway:
    """A command that runs, and what it prints as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output = ""

    def until(self, text: str) -> None:
        """Read on until a line has this text. AssertionError if the command ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"ended without {text!r}:\n{self.output}")

    def end(self) -> Run:
        """Wait for the end."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return Run(self.process.wait(), self.output)


class Project:
    """One stack of one copy of the program."""

    def __init__(self, directory: Path, stack: str) -> None:
        self.directory = directory
        self.stack = stack
        self.environment = {
            # Under `make test`, a `make` started here would count as a part of it.
            **{
                key: os.environ[key] for key in os.environ if not key.startswith(("MAKE", "MFLAGS"))
            },
            **exports(),
            "PULUMI_BACKEND_URL": (directory / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
        }
        for name in PROGRAM:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pyc*"))
            elif source.exists():
                shutil.copy(source, directory / name)
        (directory / "state").mkdir()
        (directory / ".venv").symlink_to(ROOT / ".venv")
        self.port = free_port()
        self.container = f"vllm-{stack}-{self.port}"

    def configure(self, base: str = "local", /, **keys: Any) -> None:
        """Write the stack's config: that of stack `base` with these keys replaced."""
        given = yaml.safe_load((ROOT / f"Pulumi.{base}.yaml").read_text())["config"]
        container = {**given["vllm-spark:container"], "name": self.container}
        config = {
            **given,
            "vllm-spark:endpoint": {"port": self.port},
            "vllm-spark:container": container,
            **{f"vllm-spark:{key}": value for key, value in keys.items()},
        }
        file = self.directory / f"Pulumi.{self.stack}.yaml"
        file.write_text(yaml.safe_dump({"config": config}))

    def configure_fake(self, switches: dict[str, str], /, **keys: Any) -> None:
        """The config of stack `local`, served by the fake server; `switches` without `FAKE_`."""
        environment = {f"FAKE_{name.upper()}": value for name, value in switches.items()}
        local = {"name": self.container, "gpus": "none"}
        container = {**local, **keys.pop("container", {})}
        told = {"VLLM_CPU_KVCACHE_SPACE": "1", **container.get("environment", {}), **environment}
        container["environment"] = told
        self.configure(container=container, **{"image": {"name": FAKE_IMAGE}, **keys})

    def pulumi(self, *arguments: str) -> Run:
        """Run `pulumi` on the stack and keep what it printed beside the stack's state."""
        ended = self.begin(*arguments).end()
        with (self.directory / "output.txt").open("a") as kept:
            kept.write(f"$ pulumi {' '.join(arguments)}\n{ended.output}\n[exit {ended.code}]\n")
        return ended

    def begin(self, *arguments: str) -> Underway:
        """Start `pulumi` on the stack, in a separate process group as a terminal does."""
        if not (self.directory / "state" / "selected").exists():
            self._start("stack", "select", "--create", self.stack).end()
            (self.directory / "state" / "selected").touch()
        return self._start(*arguments, "--stack", self.stack)

    def _start(self, *arguments: str) -> Underway:
        return Underway(
            subprocess.Popen(
                ["pulumi", *arguments, "--color", "never", "--non-interactive"],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                process_group=0,
            )
        )

    def up(self) -> Run:
        return self.pulumi(*UP)

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json").output)
        return outputs

    def processes(self, program: bytes = b"") -> list[int]:
        """Pulumi's processes for this project; only those that run a program of this name."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                here = (process / "cwd").readlink() == self.directory
                if here and program in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found

    def answers(self) -> bool:
        """Whether the server answers a completion now."""
        outputs = self.outputs()
        url = f"{outputs['url']}/completions"
        asked: dict[str, Any] = {"model": outputs["model"], "prompt": "Hello", "max_tokens": 1}
        return requests.post(url, json=asked, timeout=60).status_code == 200


def assert_comes_up(project: Project, command: tuple[str, ...] = UP) -> None:
    """The correct config and one `up` are enough, without an edit of the state."""
    project.configure_fake({})
    up = project.pulumi(*command)
    assert up.code == 0, up.output
    assert project.answers()

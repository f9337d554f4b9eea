"""The docker and command plugins, in the versions of their SDKs."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from pathlib import Path

from vllm_spark.setup.environment import exports
from vllm_spark.setup.steps import run, say

PLUGINS = ("docker", "command")

AGAIN_SECONDS = 24 * 3600
"""How long a checkout keeps the stand-ins of `offline/` before it asks for the official plugins."""


def ensure_plugins() -> None:
    """Install both plugins where the CLI finds them. SetupError if that fails.

    Once a day it tries to replace the stand-ins by the official plugins.
    """
    for name, number in wanted().items():
        launcher = _home() / f"resource-{name}-v{number}" / f"pulumi-resource-{name}"
        stands_in = launcher.exists() and is_stand_in(launcher)
        if launcher.exists() and not (stands_in and _age(launcher) > AGAIN_SECONDS):
            continue
        run(
            f"install the {name} plugin {number}",
            [*install_command(name, number), *(["--reinstall"] if stands_in else [])],
            env=exports(),
            fix="see whether the internet can be reached",
        )
        if stands_in:
            say(f"  the official {name} plugin takes the place of the stand-in")


def is_stand_in(launcher: Path) -> bool:
    """Whether a plugin is one of `offline/`: a script, where the official one is a program."""
    with launcher.open("rb") as program:
        return program.read(2) == b"#!"


def _age(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def wanted() -> dict[str, str]:
    """The version of each plugin."""
    return {name: version(f"pulumi-{name}") for name in PLUGINS}


def install_command(name: str, number: str) -> list[str]:
    """The command that installs a plugin into PULUMI_HOME."""
    return ["pulumi", "plugin", "install", "resource", name, number]


def _home() -> Path:
    """Where the CLI looks for plugins."""
    home = Path(exports().get("PULUMI_HOME") or os.environ.get("PULUMI_HOME", "~/.pulumi"))
    return home.expanduser() / "plugins"

"""The docker and command plugins, in the versions of their SDKs."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from vllm_spark.errors import SetupError
from vllm_spark.setup.environment import PLUGIN_HOME, exports
from vllm_spark.setup.steps import run

PLUGINS = ("docker", "command")


def ensure_plugins() -> None:
    """Install both plugins where the CLI finds them. SetupError if that fails."""
    missing = {name: number for name, number in wanted().items() if not _installed(name, number)}
    if missing and PLUGIN_HOME.exists():
        raise SetupError("this checkout has taken the stand-ins for the official plugins before")
    for name, number in missing.items():
        run(
            f"install the {name} plugin {number}",
            install_command(name, number),
            env=exports(),
            fix="see whether the internet can be reached",
        )


def wanted() -> dict[str, str]:
    """The version of each plugin."""
    return {name: version(f"pulumi-{name}") for name in PLUGINS}


def install_command(name: str, number: str) -> list[str]:
    """The command that installs a plugin into PULUMI_HOME."""
    return ["pulumi", "plugin", "install", "resource", name, number]


def _installed(name: str, number: str) -> bool:
    """Whether the CLI will find the plugin: a directory of this name in its home."""
    home = Path(exports().get("PULUMI_HOME") or os.environ.get("PULUMI_HOME", "~/.pulumi"))
    return (home.expanduser() / "plugins" / f"resource-{name}-v{number}").is_dir()

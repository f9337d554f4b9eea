"""The docker and command plugins: the official ones, else the Python ones of `offline/plugins`."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from bootstrap.environment import PLUGIN_HOME, exports
from bootstrap.steps import Unready, run, say
from offline.plugins import write_plugin_dir

Plugin = Literal["docker", "command"]
PLUGINS: tuple[Plugin, ...] = ("docker", "command")


def ensure_plugins() -> None:
    """Leave both plugins where the CLI finds them. Their versions are those of the SDKs."""
    wanted: dict[Plugin, str] = {name: version(f"pulumi-{name}") for name in PLUGINS}
    missing = {name: wanted[name] for name in PLUGINS if not _installed(name, wanted[name])}
    if not missing:
        return
    if not PLUGIN_HOME.exists():
        try:
            for name, number in missing.items():
                run(
                    f"install the {name} plugin {number}",
                    _install(name, number),
                    env=exports(),
                    mend="see whether the internet can be reached",
                )
        except Unready as error:
            say(f"  {error}\n  taking the Python plugins of offline/ instead")
        else:
            return
    PLUGIN_HOME.mkdir(parents=True, exist_ok=True)
    for name, number in wanted.items():
        with tempfile.TemporaryDirectory() as directory:
            write_plugin_dir(Path(directory), name, number, Path(sys.executable))
            run(
                f"install the offline {name} plugin",
                [*_install(name, number), "--file", directory, "--reinstall"],
                env=exports(),
                mend="repeat; if it stays, remove .tools and repeat",
            )


def _installed(name: Plugin, number: str) -> bool:
    """Whether the CLI will find the plugin: a directory of this name in its home."""
    home = Path(exports().get("PULUMI_HOME") or os.environ.get("PULUMI_HOME", "~/.pulumi"))
    return (home.expanduser() / "plugins" / f"resource-{name}-v{number}").is_dir()


def _install(name: Plugin, number: str) -> list[str]:
    return ["pulumi", "plugin", "install", "resource", name, number]

"""Installs the Python plugins of `offline/plugins` in place of the official ones."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from offline.plugins import write_plugin_dir
from vllm_spark.setup.environment import PLUGIN_HOME, exports
from vllm_spark.setup.plugins import install_command, wanted
from vllm_spark.setup.steps import run


def install_python_plugins() -> None:
    """Install both where the CLI finds them, under the version numbers of the official plugins."""
    PLUGIN_HOME.mkdir(parents=True, exist_ok=True)
    for name, number in wanted().items():
        with tempfile.TemporaryDirectory() as directory:
            write_plugin_dir(Path(directory), name, number, Path(sys.executable))
            run(
                f"install the offline {name} plugin",
                [*install_command(name, number), "--file", directory, "--reinstall"],
                env=exports(),
                fix="repeat; if it fails again, remove .tools and repeat",
            )

"""Provides what a command needs: each missing part, and only that.

Normally it downloads the part (`vllm_spark.setup`). If that fails and the checkout has `offline/`,
it builds the part from package registries instead, and says so.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from vllm_spark.config.settings import Settings
from vllm_spark.docker_host.connection import connect
from vllm_spark.errors import DiskFull, DockerUnavailable, SetupError
from vllm_spark.setup.environment import cli_on_path, exports
from vllm_spark.setup.plugins import ensure_plugins
from vllm_spark.setup.pulumi_cli import ensure_cli, usable_cli
from vllm_spark.setup.steps import say


def ensure_pulumi_cli() -> None:
    """Provide the CLI alone, and set this process's PATH so that it is found."""
    try:
        ensure_cli()
    except SetupError as error:
        if (offline := _offline()) is None or isinstance(error, DiskFull):
            raise
        say(f"  {error}\n  building it from its Go module instead")
        offline.build_pulumi_cli()
    os.environ.update(cli_on_path())


def ensure_pulumi() -> None:
    """Provide CLI and plugins, and set this process's environment so that both are found."""
    ensure_pulumi_cli()
    offline = _offline()
    os.environ.update(exports())
    try:
        ensure_plugins()
    except SetupError as error:
        if offline is None or isinstance(error, DiskFull):
            raise
        say(f"  {error}\n  taking the Python plugins of offline/ instead")
        offline.install_python_plugins()
    os.environ.update(exports())


def require_pulumi() -> None:
    """The environment of `ensure_pulumi` for a command that only reads the state.

    SetupError if there is no Pulumi, because then nothing was deployed with it.
    """
    if not usable_cli():
        raise SetupError("there is no Pulumi CLI here, so nothing was deployed\n  fix: make up")
    os.environ.update(exports())


def ensure_parts_of(settings: Settings | None) -> None:
    """Provide a Docker daemon, and the parts of `settings` that can be built without a download."""
    offline = _offline()
    try:
        connect()
    except DockerUnavailable as error:
        if offline is None:
            raise
        offline.start_docker(error)
    if settings is not None and offline is not None:
        offline.ensure_parts_of(settings)


def _offline() -> ModuleType | None:
    """The substitutes for failed downloads; None in an installed package, which has none."""
    try:
        return importlib.import_module("offline.bootstrap")
    except ImportError:
        return None

"""`make up`, `make preview`, `make down` and `make env`: what is missing is made, then Pulumi runs.

Everything here is also what plain `pulumi` does in a checkout whose environment is set up
(`make env` prints that environment); nothing of the deployment itself lives in this module.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

from bootstrap.docker_engine import ensure_docker
from bootstrap.engine_image import IMAGE, ensure_engine_image
from bootstrap.environment import exports
from bootstrap.plugins import ensure_plugins
from bootstrap.pulumi_cli import ensure_cli
from bootstrap.small_model import MODEL_ID, ensure_small_model
from bootstrap.steps import ROOT, Unready
from engine.problems import ConfigError
from engine.settings import Settings, load_stack


def main() -> int:
    """Run one command on one stack; the exit code is Pulumi's, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="deploy", description=__doc__)
    parser.add_argument("command", choices=["up", "preview", "down", "env"])
    parser.add_argument("--stack", default="local")
    chosen = parser.parse_args()
    try:
        if chosen.command == "env":
            return _print_exports()
        settings = load_stack(ROOT / f"Pulumi.{chosen.stack}.yaml")
        ensure_cli()
        ensure_plugins()
        os.environ.update(exports())
        if chosen.command != "preview":
            ensure_docker()
        if chosen.command == "up":
            _ensure_local_parts(settings)
        selected = _pulumi("stack", "select", "--create", chosen.stack)
        return selected or _pulumi(*_ARGUMENTS[chosen.command], "--stack", chosen.stack)
    except (ConfigError, Unready) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


_ARGUMENTS = {
    "up": ["up", "--yes", "--refresh"],
    "preview": ["preview", "--diff"],
    "down": ["destroy", "--yes", "--refresh"],
}


def _ensure_local_parts(settings: Settings) -> None:
    """The image and the model that Pulumi fetches by itself wherever there is an internet."""
    if settings.image.name == IMAGE:
        ensure_engine_image()
        if settings.model.id == MODEL_ID:
            ensure_small_model(settings.cache.source)


def _pulumi(*arguments: str) -> int:
    return subprocess.run(["pulumi", *arguments], cwd=ROOT, check=False).returncode


def _print_exports() -> int:
    for name, value in exports().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
from bootstrap.environment import exports
from bootstrap.local_parts import ensure_parts_of, ensure_pulumi
from bootstrap.steps import ROOT, Unready
from engine.problems import ConfigError
from engine.settings import Cache, load_stack


def main() -> int:
    """Run one command on one stack; the exit code is Pulumi's, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="deploy", description=__doc__)
    parser.add_argument("command", choices=["up", "preview", "down", "env"])
    parser.add_argument("--stack", default="local")
    chosen = parser.parse_args()
    try:
        if chosen.command == "env":
            before = dict(os.environ)
            ensure_pulumi()
            for name, value in exports(before).items():
                print(f"export {name}={shlex.quote(value)}")
            return 0
        settings = load_stack(ROOT / f"Pulumi.{chosen.stack}.yaml")
        ensure_pulumi()
        if chosen.command == "up":
            ensure_parts_of(settings)
        elif chosen.command == "down":
            ensure_docker()
        selected = _pulumi("stack", "select", "--create", chosen.stack)
        code = selected or _pulumi(*_ARGUMENTS[chosen.command], "--stack", chosen.stack)
        if chosen.command == "down" and code == 0:
            print(f"The weights stay in {_place(settings.cache)}")
        return code
    except (ConfigError, Unready) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


_ARGUMENTS = {
    "up": ["up", "--yes", "--skip-preview", "--refresh"],
    "preview": ["preview", "--diff"],
    "down": ["destroy", "--yes", "--refresh"],
}


def _pulumi(*arguments: str) -> int:
    return subprocess.run(["pulumi", *arguments], cwd=ROOT, check=False).returncode


def _place(cache: Cache) -> str:
    if cache.volume is not None:
        return f"volume {cache.volume}; `docker volume rm {cache.volume}` removes them."
    return f"{cache.host_path}; they are files of this host."


if __name__ == "__main__":
    sys.exit(main())

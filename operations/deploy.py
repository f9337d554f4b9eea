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

from bootstrap.docker_engine import SILENT, ensure_docker, silent
from bootstrap.environment import exports
from bootstrap.local_parts import ensure_parts_of, ensure_pulumi
from bootstrap.steps import ROOT, Unready, say
from engine.last_good import NoWayBack
from engine.problems import ConfigError
from engine.sections import Cache
from engine.settings import Settings, load_stack
from operations.pulumi_command import UP, run_pulumi
from operations.rollback import after_failed_up


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
        stack = chosen.stack
        if code := _select(stack):
            return code
        if chosen.command == "up":
            return _up(stack, settings)
        code = run_pulumi(*_ARGUMENTS[chosen.command], stack=stack).code
        if chosen.command == "down" and code == 0:
            print(f"The weights stay in {_place(settings.cache)}")
        return code
    except (ConfigError, Unready, NoWayBack) as error:
        say(f"error: {error}")
        return 1
    except SILENT as error:
        say(f"error: {silent(error)}")
        return 1
    except KeyboardInterrupt:
        say(f"Interrupted; `make status STACK={chosen.stack}` tells what serves.")
        return 1


_ARGUMENTS = {"preview": ["preview", "--diff"], "down": ["destroy", "--yes", "--refresh"]}


def _select(stack: str) -> int:
    return subprocess.run(
        ["pulumi", "stack", "select", "--create", stack], cwd=ROOT, check=False
    ).returncode


def _up(stack: str, settings: Settings) -> int:
    """Deploy; when that fails, say how to go back, or go back where the config wants it."""
    up = run_pulumi(*UP, stack=stack)
    if up.code == 0 or up.locked:
        return up.code
    if up.interrupted:
        say(f"Interrupted. make up STACK={stack} goes on from here.")
    if settings.state == "running":
        revert = settings.health.revert_on_failure and not up.interrupted
        after_failed_up(stack, revert=revert)
    return up.code


def _place(cache: Cache) -> str:
    if cache.volume is not None:
        return f"volume {cache.volume}; `docker volume rm {cache.volume}` removes them."
    return f"{cache.host_path}; they are files of this host."


if __name__ == "__main__":
    sys.exit(main())

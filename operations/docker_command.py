"""`make logs`, `make stop` and `make restart`: what Docker does by itself, for a stack's container.

The next `pulumi up` notices: it makes a stopped server run again, and asks a restarted one whether
it answers. `vllm-spark:state: stopped` is for a server that shall stay stopped.
"""

from __future__ import annotations

import argparse
import os
import sys

from bootstrap.steps import ROOT
from engine.problems import ConfigError
from engine.serving import container_name
from engine.settings import load_stack

_COMMANDS = {
    "logs": ["logs", "--follow", "--tail", "200"],
    "stop": ["stop"],
    "restart": ["restart"],
}


def main() -> None:
    """Become `docker`, which says by itself that there is no such container."""
    parser = argparse.ArgumentParser(prog="docker_command", description=__doc__)
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("--stack", default="local")
    chosen = parser.parse_args()
    try:
        settings = load_stack(ROOT / f"Pulumi.{chosen.stack}.yaml")
    except ConfigError as error:
        sys.exit(f"error: {error}")
    name = container_name(settings, chosen.stack)
    try:
        os.execvp("docker", ["docker", *_COMMANDS[chosen.command], name])
    except FileNotFoundError:
        sys.exit("error: there is no `docker` here\n  mend: see your PATH; `make up` installs it")


if __name__ == "__main__":
    main()

"""`make logs`: follow the log of a stack's server until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys

from bootstrap.steps import ROOT
from engine.problems import ConfigError
from engine.serving import container_name
from engine.settings import load_stack


def main() -> None:
    """Become `docker logs`, which says by itself that there is no such container."""
    parser = argparse.ArgumentParser(prog="logs", description=__doc__)
    parser.add_argument("--stack", default="local")
    stack = parser.parse_args().stack
    try:
        settings = load_stack(ROOT / f"Pulumi.{stack}.yaml")
    except ConfigError as error:
        sys.exit(f"error: {error}")
    name = container_name(settings, stack)
    os.execvp("docker", ["docker", "logs", "--follow", "--tail", "200", name])


if __name__ == "__main__":
    main()

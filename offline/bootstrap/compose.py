"""Provides docker compose: the installed one, else one built from its Go module.

Only tests and benchmarks use it, to compare a stack's container with the container of the compose
guide. docker-compose 1, which Debian 12 still packages, is a different program and is not used.
"""

from __future__ import annotations

import subprocess

from offline.bootstrap.go_programs import build_program
from vllm_spark.project import TOOLS
from vllm_spark.setup.steps import say

OURS = TOOLS / "compose" / "docker-compose"
"""Where docker compose is built if none is installed."""

VERSION = "2.40.3"
"""The version in offline/compose/go.mod."""

_STAMP = f"-X github.com/docker/compose/v2/internal.Version={VERSION}"


def ensure_compose() -> list[str]:
    """The command of docker compose, version 2 or newer. SetupError if it cannot be built."""
    for command in (["docker", "compose"], ["docker-compose"], [str(OURS)]):
        if _usable(command):
            return command
    say(f"docker compose: version 2 or newer is missing, building {VERSION} from its Go module")
    build_program(
        "github.com/docker/compose/v2/cmd",
        OURS,
        module="compose",
        stamp=_STAMP,
        instead="install docker compose (https://docs.docker.com/compose/install/)",
    )
    return [str(OURS)]


def _usable(command: list[str]) -> bool:
    """Whether the command runs and reports version 2 or newer."""
    try:
        query = [*command, "version", "--short"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
    except OSError:
        return False
    major = answer.stdout.strip().removeprefix("v").partition(".")[0]
    return answer.returncode == 0 and major.isdecimal() and int(major) >= 2

"""docker compose: the one installed, else built from its Go module.

Only tests and benchmarks need it, to hold a stack's container against what the guide's compose
service makes; `make up` does not. docker-compose 1, which Debian 12 still has, is another program
and is not taken.
"""

from __future__ import annotations

import subprocess

from offline.bootstrap.go_programs import build_program
from vllm_spark.project import TOOLS
from vllm_spark.setup.steps import say

OURS = TOOLS / "compose" / "docker-compose"
"""Where it goes if none is installed."""

VERSION = "2.40.3"
"""What offline/compose/go.mod asks for."""

_STAMP = f"-X github.com/docker/compose/v2/internal.Version={VERSION}"


def ensure_compose() -> list[str]:
    """The command of a docker compose of version 2 or newer. SetupError if none can be had."""
    for command in (["docker", "compose"], ["docker-compose"], [str(OURS)]):
        if _usable(command):
            return command
    say(f"docker compose: none of at least version 2 here, building {VERSION} from its Go module")
    build_program(
        "github.com/docker/compose/v2/cmd",
        OURS,
        module="compose",
        stamp=_STAMP,
        instead="install docker compose (https://docs.docker.com/compose/install/)",
    )
    return [str(OURS)]


def _usable(command: list[str]) -> bool:
    """Whether it can be run and says that it is version 2 or newer."""
    try:
        asked = [*command, "version", "--short"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return False
    major = said.stdout.strip().removeprefix("v").partition(".")[0]
    return said.returncode == 0 and major.isdecimal() and int(major) >= 2

"""The Pulumi CLI: the one on PATH, else one that the official installer puts into the project."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pulumi.automation as auto
from semver import VersionInfo

from vllm_spark.errors import SetupError
from vllm_spark.project import TOOLS
from vllm_spark.setup.steps import say

OURS = TOOLS / "pulumi"
"""Where the CLI is installed if there is none; PATH gets `bin` below it."""

OLDEST = VersionInfo.parse("3.238.0")
"""The first CLI in which a failing resource hook fails the deployment."""

VERSION = VersionInfo.parse("3.274.1")
"""The CLI to install: the newest that everything here was tested with."""


def ensure_cli() -> None:
    """Provide a Pulumi CLI on PATH or in `.tools/pulumi/bin`. SetupError if that fails."""
    if usable_cli():
        return
    say(f"Pulumi CLI: none of at least v{OLDEST} here, installing v{VERSION}")
    try:
        auto.PulumiCommand.install(root=str(OURS), version=VERSION)
    except (
        auto.InvalidVersionError,
        OSError,
        RuntimeError,
        subprocess.CalledProcessError,
    ) as error:
        printed = getattr(error, "output", None) or b""
        last = [f"    | {line}\n" for line in printed.decode(errors="replace").splitlines()[-3:]]
        raise SetupError(
            f"the official installer of the Pulumi CLI failed: {error}\n{''.join(last)}"
            "  fix: install Pulumi (https://www.pulumi.com/docs/install/), then repeat"
        ) from error


def usable_cli() -> bool:
    """Whether there is a CLI on PATH or in `.tools` that is new enough."""
    return _usable(None) or _usable(OURS)


def _usable(root: Path | None) -> bool:
    """Whether there is a CLI below `root`, or on PATH for None, that is new enough."""
    if root is None and shutil.which("pulumi") is None:
        return False
    try:
        auto.PulumiCommand(root=str(root) if root else None, version=OLDEST)
    except FileNotFoundError:
        return False
    except (auto.InvalidVersionError, OSError, subprocess.CalledProcessError) as error:
        say(f"Pulumi CLI: {error}")
        return False
    return True

"""The Pulumi CLI: the one on PATH, else the official installer, else built from its Go module."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pulumi.automation as auto
from semver import VersionInfo

from bootstrap.steps import ROOT, TOOLS, Unready, run, say

OURS = TOOLS / "pulumi"
"""Where the CLI goes if none is installed; `bin` below it is put on PATH."""

OLDEST = VersionInfo.parse("3.238.0")
"""The first CLI in which a failing resource hook fails the deployment."""

VERSION = VersionInfo.parse("3.259.0")
"""The CLI that goes with the SDK in requirements.txt."""

_STAMP = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}"


def ensure_cli() -> None:
    """Leave a Pulumi CLI on PATH or in `.tools/pulumi/bin`. Unready if none can be had."""
    if _usable(None) or _usable(OURS):
        return
    say(f"Pulumi CLI: none of at least v{OLDEST} here, installing v{VERSION}")
    try:
        auto.PulumiCommand.install(root=str(OURS), version=VERSION)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        say(f"  the official installer failed ({error}); building it from its Go module instead")
        _build()


def _usable(root: Path | None) -> bool:
    """Whether there is a CLI below `root`, or on PATH for None, that is new enough."""
    if root is None and shutil.which("pulumi") is None:
        return False
    try:
        auto.PulumiCommand(root=str(root) if root else None, version=OLDEST)
    except FileNotFoundError:
        return False
    except RuntimeError as error:
        say(f"Pulumi CLI: {error}")
        return False
    return True


def _build() -> None:
    """The CLI, the Python language host, and the two scripts that the language host looks for."""
    if shutil.which("go") is None:
        raise Unready(
            "there is no Go to build the Pulumi CLI with\n"
            "  mend: install Pulumi (https://www.pulumi.com/docs/install/) or Go 1.25"
        )
    mend = "see whether the Go module proxy can be reached and the disk has 5 GB free, then repeat"
    bin_ = OURS / "bin"
    cli, host = ROOT / "offline" / "cli", ROOT / "offline" / "language_host"
    sdk = "github.com/pulumi/pulumi/sdk/v3"
    # The CLI comes last: it is what `_usable` asks for, so a half-made directory is made again.
    host_package = f"{sdk}/python/cmd/pulumi-language-python"
    run(
        "build the Python language host",
        ["go", "build", "-o", bin_ / "language-python", host_package],
        cwd=host,
        mend=mend,
    )
    run("fetch the CLI's source", ["go", "mod", "download", sdk], cwd=cli, mend=mend)
    listed = subprocess.check_output(["go", "mod", "download", "-json", sdk], cwd=cli)
    python = Path(json.loads(listed)["Dir"]) / "python"
    for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
        copied = shutil.copy(python / script, bin_)
        os.chmod(copied, 0o755)  # noqa: PTH101  the module cache is read-only
    wrapper = bin_ / "pulumi-language-python"
    shutil.copyfile(ROOT / "offline" / "language_host" / "pulumi-language-python.sh", wrapper)
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    cli_package = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
    run(
        "build the Pulumi CLI",
        ["go", "build", "-ldflags", _STAMP, "-o", bin_ / "pulumi", cli_package],
        cwd=cli,
        mend=mend,
    )

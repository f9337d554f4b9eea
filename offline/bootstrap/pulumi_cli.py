"""Builds the Pulumi CLI from its Go module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from offline import HERE
from offline.bootstrap.go_programs import NO_BUILD, build_program
from vllm_spark.setup.pulumi_cli import OURS, VERSION
from vllm_spark.setup.steps import run

_STAMP = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}"


def build_pulumi_cli() -> None:
    """Build the CLI and the Python language host, and copy the two scripts that the host needs.

    SetupError if Go is missing or a build fails.
    """
    instead = "install Pulumi (https://www.pulumi.com/docs/install/)"
    bin_ = OURS / "bin"
    cli = HERE / "cli"
    sdk = "github.com/pulumi/pulumi/sdk/v3"
    # The CLI comes last: `usable_cli` looks for it, so an incomplete folder is built again.
    build_program(
        f"{sdk}/python/cmd/pulumi-language-python",
        bin_ / "language-python",
        module="language_host",
        instead=instead,
    )
    run("fetch the CLI's source", ["go", "mod", "download", sdk], cwd=cli, fix=NO_BUILD)
    listed = subprocess.check_output(["go", "mod", "download", "-json", sdk], cwd=cli)
    python = Path(json.loads(listed)["Dir"]) / "python"
    for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
        copied = shutil.copy(python / script, bin_)
        os.chmod(copied, 0o755)  # noqa: PTH101  the module cache is read-only
    wrapper = bin_ / "pulumi-language-python"
    shutil.copyfile(HERE / "language_host" / "pulumi-language-python.sh", wrapper)
    wrapper.chmod(0o755)
    build_program(
        "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        bin_ / "pulumi",
        module="cli",
        stamp=_STAMP,
        instead=instead,
    )

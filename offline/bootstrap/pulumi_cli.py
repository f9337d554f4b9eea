"""Builds the Pulumi CLI from its Go module."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

from offline import HERE
from vllm_spark.errors import SetupError
from vllm_spark.setup.pulumi_cli import OURS, VERSION
from vllm_spark.setup.steps import run

_STAMP = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}"


def build_pulumi_cli() -> None:
    """Build the CLI and the Python language host, and copy the two scripts that the host needs.

    SetupError if Go is missing or a build fails.
    """
    if shutil.which("go") is None:
        raise SetupError(
            "Go is missing, and the Pulumi CLI is built with it\n"
            "  fix: install Pulumi (https://www.pulumi.com/docs/install/) or Go 1.25"
        )
    fix = "check that the Go module proxy can be reached and 5 GB of disk are free, then repeat"
    bin_ = OURS / "bin"
    cli, host = HERE / "cli", HERE / "language_host"
    sdk = "github.com/pulumi/pulumi/sdk/v3"
    # The CLI comes last: `usable_cli` looks for it, so an incomplete folder is built again.
    host_package = f"{sdk}/python/cmd/pulumi-language-python"
    run(
        "build the Python language host",
        ["go", "build", "-o", bin_ / "language-python", host_package],
        cwd=host,
        fix=fix,
    )
    run("fetch the CLI's source", ["go", "mod", "download", sdk], cwd=cli, fix=fix)
    listed = subprocess.check_output(["go", "mod", "download", "-json", sdk], cwd=cli)
    python = Path(json.loads(listed)["Dir"]) / "python"
    for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
        copied = shutil.copy(python / script, bin_)
        os.chmod(copied, 0o755)  # noqa: PTH101  the module cache is read-only
    wrapper = bin_ / "pulumi-language-python"
    shutil.copyfile(HERE / "language_host" / "pulumi-language-python.sh", wrapper)
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    cli_package = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
    run(
        "build the Pulumi CLI",
        ["go", "build", "-ldflags", _STAMP, "-o", bin_ / "pulumi", cli_package],
        cwd=cli,
        fix=fix,
    )

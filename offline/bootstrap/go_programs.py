"""Builds programs from Go modules, each in the version that its go.mod in `offline/` has."""

from __future__ import annotations

import shutil
from pathlib import Path

from offline import HERE
from vllm_spark.errors import SetupError
from vllm_spark.setup.steps import run

NO_BUILD = "check that the Go module proxy can be reached and 5 GB of disk are free, then repeat"
"""The fix of a download or a build that failed."""


def build_program(
    package: str,
    output: Path,
    *,
    module: str,
    instead: str | None = None,
    stamp: str | None = None,
) -> None:
    """Build a main package of the module in `offline/<module>` into the file `output`.

    `instead` is another way to have the program, for those who have no Go; `stamp` an argument for
    Go's linker, which writes a version into the program. SetupError if it cannot be built.
    """
    name = output.name
    if shutil.which("go") is None:
        ways = [*([instead] if instead else []), "install Go 1.26.6 or newer"]
        raise SetupError(f"Go is missing, and {name} is built with it\n  fix: {', or '.join(ways)}")
    flags = ("-ldflags", stamp) if stamp else ()
    command = ("go", "build", *flags, "-o", output, package)
    run(f"build {name}", command, cwd=HERE / module, fix=NO_BUILD)

"""actionlint, which checks the workflows of `.github/`: built from its Go module, for the tests."""

from __future__ import annotations

from offline.bootstrap.go_programs import build_program
from vllm_spark.project import TOOLS

VERSION = "1.7.12"
"""The version in offline/actionlint/go.mod."""

OURS = TOOLS / f"actionlint-{VERSION}" / "actionlint"


def ensure_actionlint() -> str:
    """The path of the program. SetupError if it cannot be built."""
    if not OURS.exists():
        build_program(
            "github.com/rhysd/actionlint/cmd/actionlint",
            OURS,
            module="actionlint",
        )
    return str(OURS)

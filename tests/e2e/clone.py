"""A clone of the checkout for `vllm-spark plan`, on a machine that reviews what others changed.

It has no Docker daemon and no state, and secrets in its environment that nobody may see.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.checkout import Checkout
from tests.e2e.project import Run

CANARY = "canary7f3"


class Clone(Checkout):
    """A checkout with one commit, whose environment holds secrets."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_HOME"):
            self.environment.pop(name, None)
        (directory / ".state" / "exported").touch()
        self.environment |= {
            "DOCKER_HOST": "unix:///nowhere/docker.sock",
            "HF_TOKEN": f"{CANARY}-of-the-runner",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
        }  # fmt: skip
        self.git("git init -q")
        self.commit()

    def git(self, script: str) -> None:
        ran = self.run(script)
        assert ran.code == 0, ran.output

    def commit(self) -> None:
        self.git("git add -A && git commit -qm one --allow-empty")

    def plan(self, options: str = "", base: str = "HEAD") -> Run:
        return self.run(f"make -s plan BASE={base} {options}")

    def report(self, base: str = "HEAD") -> dict[str, Any]:
        ran = self.plan("JSON=1 2>/dev/null || true", base)
        report: dict[str, Any] = json.loads(ran.output)
        return {stack["name"]: stack for stack in report["stacks"]}

"""A copy of the whole checkout, in which `make` runs as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.e2e.project import ROOT, Run, free_port


class Checkout:
    """The files that git knows, with the real checkout's tools and a separate state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
        for name in filter(None, tracked.split("\0")):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
        for made in (".venv", ".tools"):
            (directory / made).symlink_to(ROOT / made)
        (directory / ".state").mkdir()
        self.environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": (directory / ".state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "STACK": "local",
        }
        self.port = free_port()

    def change(self, stack: str, **keys: object) -> None:
        """Replace keys of a stack's config."""
        file = self.directory / f"Pulumi.{stack}.yaml"
        config = yaml.safe_load(file.read_text())["config"]
        config |= {f"vllm-spark:{key}": value for key, value in keys.items()}
        file.write_text(yaml.safe_dump({"config": config}))

    def run(self, script: str) -> Run:
        """Run a piece of bash; what it exports is there for the next one, as in a terminal."""
        exported = self.directory / ".state" / "exported"
        exported.touch()
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f". {exported}\n{script}\nexport -p > {exported}"],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        return Run(ended.returncode, ended.stdout)

"""`pulumi new` from a checkout works as with any Pulumi template."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e.project import ROOT, Project

pytestmark = pytest.mark.e2e


def test_pulumi_new_makes_a_project_of_another_name_that_previews(
    project: Project, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    subprocess.run(["git", "clone", "--quiet", ROOT, template], check=True)
    made = tmp_path / "made"
    made.mkdir()
    new = subprocess.run(
        ["pulumi", "new", template, "--yes", "--generate-only", "--name", "my-llm", "--dir", made],
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert new.returncode == 0, new.stdout + new.stderr
    written = yaml.safe_load((made / "Pulumi.yaml").read_text())
    assert written["name"] == "my-llm"
    (made / ".venv").symlink_to(ROOT / ".venv")
    for command in (["stack", "select", "--create", "spark"], ["preview", "--diff"]):
        ran = subprocess.run(
            ["pulumi", *command, "--non-interactive"],
            cwd=made,
            env=project.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8" in ran.stdout

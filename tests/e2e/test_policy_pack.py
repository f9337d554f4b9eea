"""The policy pack under the real Pulumi engine, which needs no Docker daemon for a preview."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.project import ROOT, Project, Run
from vllm_spark.setup.pulumi_cli import OURS

pytestmark = pytest.mark.e2e

PACK = ROOT / "policy"
CANARY = "hunter22-canary"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The argument of `--policy-pack`.

    The language host of `offline/` is older than the request by which the CLI has it start a pack.
    There, a script starts it with the command that newer hosts use.
    """
    if not (OURS / "bin" / "language-python").exists():
        return PACK
    script = tmp_path_factory.mktemp("pack") / "start"
    python = ROOT / ".venv" / "bin" / "python"
    script.write_text(f'#!/bin/sh\nexec {python} -u -m pulumi.policy "$1" {PACK}\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, "policy")


def preview(project: Project, pack: Path, levels: dict[str, Any] | None = None) -> Run:
    """What `pulumi preview` says under the pack, with the levels that a team sets."""
    config = project.directory / "levels.json"
    config.write_text(json.dumps(levels or {}))
    packs = ("--policy-pack", os.fspath(pack), "--policy-pack-config", os.fspath(config))
    return project.pulumi("preview", *packs)


def test_stack_spark_passes_with_the_exception_that_it_states(project: Project, pack: Path) -> None:
    project.configure("spark")
    passed = preview(project, pack)
    assert passed.code == 0, passed.output
    assert "vllm-spark@v" in passed.output
    assert "mandatory" not in passed.output and "advisory" not in passed.output


def test_a_rule_fails_the_preview_and_tells_the_fix_at_the_level_that_the_team_sets(
    project: Project, pack: Path
) -> None:
    project.configure("spark", policy={})
    refused = preview(project, pack)
    assert refused.code != 0
    assert "[mandatory]  remote-code" in refused.output
    assert "fix: set vllm-spark:model.revision to a commit" in refused.output
    limit = {"enforcementLevel": "mandatory", "limit": 0.8}
    other = preview(project, pack, {"remote-code": "advisory", "memory-share": limit})
    assert other.code != 0
    assert "[advisory]  remote-code" in other.output
    assert "gpu-memory-utilization is 0.85, and the limit is 0.8" in other.output
    off = preview(project, pack, {"all": "disabled"})
    assert off.code == 0, off.output
    assert "[mandatory]" not in off.output and "[advisory]" not in off.output


def test_a_secret_variable_passes_and_a_plain_one_is_named_without_its_value(
    project: Project, pack: Path
) -> None:
    host = {"AWS_SECRET_ACCESS_KEY": CANARY}
    given = yaml.safe_load((ROOT / "Pulumi.spark.yaml").read_text())["config"]
    container = {**given["vllm-spark:container"], "environment": host}
    project.configure("spark", container=container, endpoint={"bind": "0.0.0.0", "port": 8000})
    for key in ("apiKey", "secretEnvironment.DB_PASSWORD"):
        path = ("--path",) if "." in key else ()
        set_ = ("config", "set", "--secret", *path, f"vllm-spark:{key}", CANARY)
        assert project.pulumi(*set_).code == 0
    refused = preview(project, pack)
    assert refused.code != 0
    assert "the variable AWS_SECRET_ACCESS_KEY looks like a secret" in refused.output
    assert "[advisory]  plain-http" in refused.output
    for told in ("DB_PASSWORD", "open-endpoint", CANARY):
        assert told not in refused.output

"""`vllm-spark plan --base REF` in a clone: the real engine at both versions, without a daemon.

A machine that reviews pull requests has no Docker, no state, and must not show its own secrets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.checkout import Checkout
from tests.e2e.project import Run

pytestmark = pytest.mark.e2e

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


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("plan"))


@pytest.fixture
def clone(kept: Clone) -> Clone:
    """The clone without the changes of another test."""
    kept.git("git reset -q --hard $(git rev-list --max-parents=0 HEAD) && git clean -fdq")
    return kept


def test_no_change_is_one_line_and_exit_code_0(clone: Clone) -> None:
    ran = clone.plan()
    assert ran.code == 0, ran.output
    assert ran.output.startswith("No stack changes from `HEAD (")
    assert len(ran.output.splitlines()) == 1


def test_a_changed_flag_is_told_with_its_downtime_and_numbers(clone: Clone) -> None:
    file = clone.directory / "Pulumi.spark.yaml"
    file.write_text(file.read_text().replace("max-num-seqs: 64", "max-num-seqs: 128"))
    before = file.read_text()
    ran = clone.run(".venv/bin/python -m vllm_spark plan --base HEAD || echo exit $?")
    assert "exit 2" in ran.output
    assert "| `engine.max-num-seqs` | `64` | `128` | `requests computed" in ran.output
    assert "replaced; how long it does not answer is not known" in ran.output
    assert "left to the host, GiB" in ran.output
    assert file.read_text() == before, "no line of a throw-away passphrase is left in it"


def test_what_needs_no_new_container_is_updated_in_place(clone: Clone) -> None:
    clone.change("local", health={"timeoutSeconds": 60})
    clone.change("spark", container={"ulimits": {"memlock": -1, "stack": 67108864}})
    config = yaml.safe_load((clone.directory / "Pulumi.spark.yaml").read_text())["config"]
    clone.change("qwen3-32b", container={"restart": "no", **config["vllm-spark:container"]})
    found = clone.report()
    assert found["local"]["downtime"]["container"] == "unchanged"
    assert found["qwen3-32b"]["downtime"]["container"] == "updated"
    assert found["spark"]["downtime"]["container"] == "unchanged", "the defaults are the same"

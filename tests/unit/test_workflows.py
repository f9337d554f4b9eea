"""The workflows of `.github/`, read by the linters that the field uses for them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from offline.bootstrap.actionlint import ensure_actionlint
from tests.installed import program

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".github" / "workflows" / "ci.yml"

BAD = """\
on: pull_request_target
jobs:
  check:
    runs-on: ubuntu-24.04-harm
    steps:
      - uses: actions/checkout@v7
        with:
          ref: ${{ github.event.pull_request.head.ref }}
      - run: echo "${{ github.event.pull_request.title }}"
"""
"""What each of the two linters has to refuse."""


def actionlint(file: Path) -> subprocess.CompletedProcess[str]:
    # Without shellcheck and pyflakes, which it would run where they happen to be installed.
    command = [ensure_actionlint(), "-shellcheck=", "-pyflakes=", "-no-color", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def zizmor(file: Path) -> subprocess.CompletedProcess[str]:
    command = [program("zizmor"), "--offline", "--no-config", "--color=never", "--persona=pedantic"]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / ".github" / "workflows" / "bad.yml"
    file.parent.mkdir(parents=True)
    file.write_text(BAD)
    return file


@pytest.mark.registry
def test_actionlint_finds_nothing_in_our_workflow() -> None:
    linted = actionlint(CI)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.registry
def test_actionlint_refuses_a_runner_that_there_is_not(bad: Path) -> None:
    linted = actionlint(bad)
    assert linted.returncode == 1, linted.stderr
    assert "ubuntu-24.04-harm" in linted.stdout


def test_zizmor_finds_nothing_in_our_workflow() -> None:
    audited = zizmor(CI)
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_zizmor_refuses_unpinned_actions_and_text_of_strangers_in_a_shell(bad: Path) -> None:
    audited = zizmor(bad)
    assert audited.returncode != 0
    for finding in ("unpinned-uses", "template-injection", "excessive-permissions"):
        assert finding in audited.stdout


def test_pull_requests_are_checked_on_both_architectures_and_three_pythons() -> None:
    jobs: dict[str, Any] = yaml.safe_load(CI.read_text())["jobs"]
    matrix = jobs["check"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert {"run": "make check"} in jobs["check"]["steps"]
    assert {"run": "make test"} in jobs["test"]["steps"]

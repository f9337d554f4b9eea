"""The shell of the workflows, run as a runner runs it, against GitHub's API on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_github import TOKEN, FakeGitHub, archive, serving
from tests.workflow_steps import documented_workflows, read_workflow, run_steps
from vllm_spark.changes.report import ConfigChange, Report, StackChange

ROOT = Path(__file__).resolve().parents[2]
COMMENT = read_workflow((ROOT / ".github" / "workflows" / "comment.yml").read_text())
DRIFT = read_workflow(documented_workflows(ROOT / "docs" / "review.md")["drift"])
HEAD = "a" * 40
FORK = "somebody/models"
HOSTILE = "x;touch${IFS}ran;$(touch${IFS}ran)`touch${IFS}ran`"
"""A branch of this name may exist: git allows all of these characters."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The default branch, checked out, with its packages installed."""
    folder = tmp_path / "checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").touch()
    os.utime(folder / "requirements.txt", (0, 0))
    (folder / ".venv" / "ready").touch()
    for linked in ("vllm_spark", "models", "Pulumi.yaml"):
        (folder / linked).symlink_to(ROOT / linked)
    install_python(folder, f'exec {sys.executable} "$@"')
    return folder


def install_python(folder: Path, script: str) -> None:
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


@pytest.fixture
def hub() -> Iterator[FakeGitHub]:
    """A pull request from a fork, whose job has uploaded a report."""
    changed = [ConfigChange(key="engine.max-num-seqs", old="64", new="128")]
    told = Report(
        base="main", head="tree", stacks=[StackChange(name="s", status="changed", changes=changed)]
    )
    hub = FakeGitHub()
    hub.add_run(4711, head=HEAD, branch=HOSTILE, source=FORK)
    hub.add_pull(7, head=HEAD, branch=HOSTILE, source=FORK)
    hub.add_artifact(4711, archive({"report.json": told.json_text()}))
    with serving(hub):
        yield hub


def run(
    workflow: dict[str, Any],
    hub: FakeGitHub,
    checkout: Path,
    permissions: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the workflow's job with the permissions that it declares."""
    (job,) = workflow["jobs"].values()
    hub.permissions = job["permissions"] if permissions is None else permissions
    runner = {name: text for name, text in hub.environment.items() if name != "GITHUB_TOKEN"}
    return run_steps(
        job,
        folder=checkout,
        contexts={"github.token": TOKEN, "github.event.workflow_run.id": "4711"},
        environment=runner | {"RUNNER_TEMP": str(checkout.parent)},
        script=checkout.parent / "step.sh",
    )


def test_the_comment_is_written_with_the_permissions_that_the_job_has(
    hub: FakeGitHub, checkout: Path
) -> None:
    ended = run(COMMENT, hub, checkout)
    assert ended.returncode == 0, ended.stderr
    assert "a comment is written" in ended.stdout
    (comment,) = hub.comments[7]
    assert "`128`" in comment["body"] and HEAD in comment["body"]


@pytest.mark.parametrize("missing", ["actions", "pull-requests"])
def test_each_permission_is_needed(hub: FakeGitHub, checkout: Path, missing: str) -> None:
    (job,) = COMMENT["jobs"].values()
    fewer = {name: level for name, level in job["permissions"].items() if name != missing}
    ended = run(COMMENT, hub, checkout, fewer)
    assert ended.returncode == 2
    assert "fix: see the job's `permissions`" in ended.stderr
    assert hub.written == []


def test_a_branch_with_shell_in_its_name_runs_nothing(hub: FakeGitHub, checkout: Path) -> None:
    before = set(checkout.iterdir())
    run(COMMENT, hub, checkout)
    assert hub.comments[7], "the comment is written all the same"
    assert set(checkout.iterdir()) == before and not (checkout.parent / "ran").exists()


def test_a_hostile_artifact_writes_no_file(hub: FakeGitHub, checkout: Path) -> None:
    hub.add_artifact(4711, archive({"../ran": "x", "report.json": "[]", "Makefile": "all:\n"}))
    before = {file: file.stat().st_mtime_ns for file in checkout.iterdir()}
    ended = run(COMMENT, hub, checkout)
    assert ended.returncode == 1
    assert {file: file.stat().st_mtime_ns for file in checkout.iterdir()} == before
    assert not (checkout.parent / "ran").exists()


def status(checkout: Path, code: int, *drift: str) -> None:
    """Let `vllm-spark status` tell of this drift, and end with this code."""
    servers = [{"server": "vllm", "serving": "yes", "drift": drift}]
    told = json.dumps({"stack": "spark", "servers": servers}) if code < 2 else ""
    (checkout.parent / "status.json").write_text(told)
    install_python(
        checkout,
        f'[ "$3" = status ] || exec {sys.executable} "$@"\n'
        f'[ "$*" = "-m vllm_spark status --stack=spark --drift --json" ] || exit 9\n'
        f"cat {checkout.parent / 'status.json'}\nexit {code}",
    )


def test_drift_opens_one_issue_which_is_edited_and_closed(hub: FakeGitHub, checkout: Path) -> None:
    status(checkout, 0)
    assert "no drift" in run(DRIFT, hub, checkout).stdout
    assert hub.issues == []
    status(checkout, 1, "ipc: runs with private, declared host")
    ended = run(DRIFT, hub, checkout)
    assert ended.returncode == 0, ended.stderr
    (issue,) = hub.issues
    assert issue["title"] == "Stack spark has drifted"
    assert "- `vllm`: `ipc: runs with private, declared host`" in issue["body"]
    assert "is up to date" in run(DRIFT, hub, checkout).stdout
    status(checkout, 1, "container: gone, declared")
    run(DRIFT, hub, checkout)
    assert "gone" in issue["body"] and "private" not in issue["body"]
    status(checkout, 0)
    run(DRIFT, hub, checkout)
    assert issue["state"] == "closed" and len(hub.issues) == 1
    status(checkout, 1, "container: gone, declared")
    run(DRIFT, hub, checkout)
    assert [one["state"] for one in hub.issues] == ["closed", "open"]


def test_drift_that_is_not_known_fails_the_job_and_leaves_the_issue(
    hub: FakeGitHub, checkout: Path
) -> None:
    status(checkout, 1, "container: gone, declared")
    run(DRIFT, hub, checkout)
    before = hub.written.copy()
    status(checkout, 2)
    assert run(DRIFT, hub, checkout).returncode != 0
    status(checkout, 0)
    (checkout.parent / "status.json").write_text("error: the Docker daemon does not answer")
    failed = run(DRIFT, hub, checkout)
    assert failed.returncode == 2
    assert "so the drift is not known" in failed.stderr
    assert hub.written == before


def test_issues_and_pull_requests_of_others_are_not_the_drift_issue(
    hub: FakeGitHub, checkout: Path
) -> None:
    status(checkout, 1, "container: gone, declared")
    run(DRIFT, hub, checkout)
    (ours,) = hub.issues
    body = ours["body"]
    hub.issues[:] = [
        {**ours, "number": 1, "user": {"login": "somebody"}},
        {**ours, "number": 2, "pull_request": {}},
        {**ours, "number": 3, "body": f"It quotes {body}"},
        {**ours, "number": 4, "body": body.replace("drift of spark", "drift of other")},
        {**ours, "number": 5, "body": None},
    ]
    run(DRIFT, hub, checkout)
    assert [one["number"] for one in hub.issues] == [1, 2, 3, 4, 5, 6]


def test_what_a_container_is_called_or_runs_with_is_code_in_the_issue(
    hub: FakeGitHub, checkout: Path
) -> None:
    status(checkout, 1, *["`@team/admins` <img src=x>\n# [x](https://e.example)"] * 1000)
    run(DRIFT, hub, checkout)
    (issue,) = hub.issues
    assert len(issue["body"].encode()) < 61_000 and "shows all" in issue["body"]
    for line in issue["body"].splitlines():
        outside = "".join(line.split("`")[::2])
        assert "@team" not in outside and "<img" not in outside and "e.example" not in outside

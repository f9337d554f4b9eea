"""The workflows of `.github/`, read by the linters that the field uses for them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from offline.bootstrap.actionlint import ensure_actionlint
from tests.installed import program
from tests.workflow_steps import documented_workflows, read_workflow

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {file.stem: file.read_text() for file in WORKFLOWS}
READ = {name: read_workflow(text) for name, text in TEXTS.items()}
EXAMPLES = documented_workflows(ROOT / "docs" / "review.md")
OF_PULL_REQUESTS = [name for name in READ if "pull_request" in READ[name]["on"]]
"""The workflows that GitHub takes from a pull request, with everything that it changes."""

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
@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_actionlint_finds_nothing_in_our_workflows(file: Path) -> None:
    linted = actionlint(file)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / ".github" / "workflows" / f"{request.param}.yml"
    file.parent.mkdir(parents=True)
    file.write_text(EXAMPLES[request.param])
    return file


@pytest.mark.registry
def test_actionlint_finds_nothing_in_the_documented_workflows(example: Path) -> None:
    linted = actionlint(example)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_zizmor_finds_nothing_in_the_documented_workflows(example: Path) -> None:
    audited = zizmor(example)
    assert audited.returncode == 0, audited.stdout + audited.stderr


@pytest.mark.registry
def test_actionlint_refuses_a_runner_that_there_is_not(bad: Path) -> None:
    linted = actionlint(bad)
    assert linted.returncode == 1, linted.stderr
    assert "ubuntu-24.04-harm" in linted.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_zizmor_finds_nothing_in_our_workflows(file: Path) -> None:
    audited = zizmor(file)
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_zizmor_refuses_unpinned_actions_and_text_of_strangers_in_a_shell(bad: Path) -> None:
    audited = zizmor(bad)
    assert audited.returncode != 0
    for finding in ("unpinned-uses", "template-injection", "excessive-permissions"):
        assert finding in audited.stdout


def test_pull_requests_are_checked_on_both_architectures_and_three_pythons() -> None:
    jobs: dict[str, Any] = READ["ci"]["jobs"]
    matrix = jobs["check"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert {"run": "make check"} in jobs["check"]["steps"]
    assert {"run": "make test"} in jobs["test"]["steps"]


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in READ[name]["jobs"].values() for step in job["steps"]]


def test_every_action_is_pinned_by_its_commit_with_the_release_beside_it() -> None:
    for text in (*TEXTS.values(), *EXAMPLES.values()):
        for line in text.splitlines():
            if "uses:" in line:
                assert re.search(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("name", OF_PULL_REQUESTS)
def test_a_job_with_code_of_a_pull_request_reads_the_repository_and_no_more(name: str) -> None:
    """Whatever it edits (workflow, policy, program, requirements) runs with these rights at most.

    GitHub lets a pull request edit these files too, but gives a fork no more than a token that
    reads, and no secret; so what these files say is for branches of the repository itself.
    """
    assert READ[name]["permissions"] == {}
    for job in READ[name]["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert "environment" not in job and "self-hosted" not in str(job["runs-on"])
    assert "secrets" not in TEXTS[name] and "id-token" not in TEXTS[name]
    assert "github.token" not in TEXTS[name]
    for step in steps(name):
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
            assert "ref" not in step["with"] and "token" not in step["with"]


def test_the_documented_workflows_have_secrets_or_rights_only_for_code_that_is_merged() -> None:
    assert set(EXAMPLES) == {"merged", "drift"}
    merged = read_workflow(EXAMPLES["merged"])
    assert merged["on"] == {"push": {"branches": ["main"]}}
    assert all("environment" in job for job in merged["jobs"].values())
    drift = read_workflow(EXAMPLES["drift"])
    assert list(drift["on"]) == ["schedule"]
    assert [job["permissions"] for job in drift["jobs"].values()] == [{"issues": "write"}]


def test_no_workflow_runs_a_pull_request_with_the_rights_of_the_repository() -> None:
    assert OF_PULL_REQUESTS == ["ci", "preview"]
    assert not any("pull_request_target" in READ[name]["on"] for name in READ)
    assert "issue_comment" not in str([READ[name]["on"] for name in READ])


def test_the_job_that_comments_has_code_of_the_default_branch_only() -> None:
    assert READ["comment"]["on"] == {
        "workflow_run": {"workflows": [READ["preview"]["name"]], "types": ["completed"]}
    }
    checkout, python, install, comment = steps("comment")
    assert checkout["with"] == {
        "ref": "${{ github.event.repository.default_branch }}",
        "persist-credentials": False,
    }
    assert python["with"] == {"python-version": "3.11"}, "no cache"
    assert "env" not in install, "no token while packages are installed"
    assert comment["env"] == {
        "GITHUB_TOKEN": "${{ github.token }}",
        "RUN": "${{ github.event.workflow_run.id }}",
    }
    assert "download-artifact" not in TEXTS["comment"]


def test_the_job_that_comments_may_write_comments_and_nothing_else() -> None:
    assert READ["comment"]["permissions"] == {}
    (job,) = READ["comment"]["jobs"].values()
    assert job["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    assert "secrets" not in TEXTS["comment"]

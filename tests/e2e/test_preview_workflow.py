"""From a pull request to its comment: the shell of both workflows, with the real Pulumi engine.

GitHub itself, the upload and the download are not here; the API is that of `tests/fake_github.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_github import TOKEN, FakeGitHub, archive, serving
from tests.workflow_steps import read_workflow, run_steps

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
RUN = 4711
STACKS = ("Pulumi.yaml", "Pulumi.spark.yaml", "Pulumi.local.yaml")
"""Those of the repository; the others would only cost time."""


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    return subprocess.check_output(["git", *identity, *words], cwd=folder, text=True).strip()


class PullRequest:
    """A base, a branch, and their merge, checked out as `actions/checkout` does."""

    def __init__(self, folder: Path) -> None:
        self.origin, self.checkout = folder / "origin", folder / "checkout"
        self.origin.mkdir()
        tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
        for name in filter(None, tracked.split("\0")):
            if name.startswith("Pulumi.") and name not in STACKS:
                continue
            (self.origin / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.origin / name)
        git(self.origin, "init", "--quiet", "--initial-branch=main")
        git(self.origin, "add", "--all")
        git(self.origin, "commit", "--quiet", "--message=base")
        git(self.origin, "switch", "--quiet", "--create=change")

    def change(self, stack: str, **engine: object) -> None:
        """Change flags of a stack on the branch."""
        file = self.origin / f"Pulumi.{stack}.yaml"
        config = yaml.safe_load(file.read_text())
        config["config"]["vllm-spark:engine"] |= {
            key.replace("_", "-"): value for key, value in engine.items()
        }
        file.write_text(yaml.safe_dump(config))

    def merge(self) -> str:
        """Commit the branch, merge it, check the merge out; returns the head of the branch."""
        git(self.origin, "add", "--all")
        git(self.origin, "commit", "--quiet", "--allow-empty", "--message=change")
        head = git(self.origin, "rev-parse", "HEAD")
        git(self.origin, "switch", "--quiet", "main")
        git(self.origin, "merge", "--quiet", "--no-ff", "--message=merge", "change")
        depth = ("clone", "--quiet", "--depth=2", self.origin.as_uri(), os.fspath(self.checkout))
        git(self.origin, *depth)
        for made in (".venv", ".tools"):
            (self.checkout / made).symlink_to(ROOT / made)
        os.utime(self.checkout / "requirements.txt", (0, 0))  # its packages are installed
        return head

    def run(self, workflow: str, contexts: dict[str, str], environment: dict[str, str]) -> Any:
        """Run the shell of a workflow's job in the checkout."""
        (job,) = read_workflow((WORKFLOWS / workflow).read_text())["jobs"].values()
        return run_steps(
            job,
            folder=self.checkout,
            contexts=contexts,
            environment=environment,
            script=self.checkout.parent / "step.sh",
        )

    @property
    def report(self) -> Path:
        """What the job uploads."""
        return self.checkout / "report.json"


@pytest.fixture
def pull_request(tmp_path: Path) -> PullRequest:
    return PullRequest(tmp_path)


@pytest.fixture
def hub() -> Iterator[FakeGitHub]:
    with serving(FakeGitHub()) as hub:
        yield hub


def test_a_changed_flag_of_a_fork_becomes_a_comment(
    pull_request: PullRequest, hub: FakeGitHub
) -> None:
    pull_request.change("spark", max_num_seqs=128)
    head = pull_request.merge()
    previewed = pull_request.run("preview.yml", {}, {})
    assert previewed.returncode == 0, previewed.stderr

    hub.add_run(RUN, head=head, branch="change", source="somebody/models")
    hub.add_pull(7, head=head, branch="change", source="somebody/models")
    hub.add_artifact(RUN, archive({"report.json": pull_request.report.read_bytes()}))
    runner = {name: text for name, text in hub.environment.items() if name != "GITHUB_TOKEN"}
    contexts = {"github.token": TOKEN, "github.event.workflow_run.id": str(RUN)}
    commented = pull_request.run("comment.yml", contexts, runner)
    assert commented.returncode == 0, commented.stderr
    (comment,) = hub.comments[7]
    told = comment["body"]
    assert "| `engine.max-num-seqs` | `64` | `128` |" in told
    assert git(pull_request.origin, "rev-parse", "main^1")[:12] in told
    assert "`remote-code`" in told, "the exception of stack spark is listed"
    assert "`local`" not in told


def test_a_pull_request_without_a_changed_stack_passes_and_says_nothing(
    pull_request: PullRequest, hub: FakeGitHub
) -> None:
    pull_request.merge()
    previewed = pull_request.run("preview.yml", {}, {})
    assert previewed.returncode == 0, previewed.stderr
    assert '"stacks": []' in pull_request.report.read_text()


def test_a_stack_that_would_be_refused_fails_the_check_and_is_reported(
    pull_request: PullRequest,
) -> None:
    pull_request.change("spark", gpu_memory_utilization=0.99)
    pull_request.merge()
    previewed = pull_request.run("preview.yml", {}, {})
    assert previewed.returncode != 0
    assert '"status": "refused"' in pull_request.report.read_text()


def test_a_report_that_cannot_be_made_fails_the_check_and_leaves_none(
    pull_request: PullRequest,
) -> None:
    pull_request.merge()
    (pull_request.checkout / "Pulumi.yaml").unlink()
    previewed = pull_request.run("preview.yml", {}, {})
    assert previewed.returncode != 0
    assert not pull_request.report.exists()

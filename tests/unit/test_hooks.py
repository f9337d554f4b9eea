"""The pre-commit hooks: a key that belongs to somebody's passphrase stays out of a commit."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.installed import program

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / ".pre-commit-config.yaml"
STACK = "config:\n  vllm-spark:model:\n    id: a/b\n"
SALT = "encryptionsalt: v1:Zm9yIHRlc3Rz:v1:AAAA:BBBB\n"


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments]
    return subprocess.check_output(command, cwd=repository, text=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    shutil.copy(CONFIG, tmp_path)
    git(tmp_path, "add", CONFIG.name)
    return tmp_path


def refused(repository: Path, name: str, text: str) -> str | None:
    """What the hook says to a commit of this file; None if it lets it pass."""
    (repository / name).write_text(text)
    git(repository, "add", name)
    ran = subprocess.run(
        [program("pre-commit"), "run", "no-encryptionsalt", "--color=never"],
        cwd=repository,
        env=os.environ | {"PRE_COMMIT_HOME": str(repository / ".git" / "pre-commit")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return ran.stdout if ran.returncode else None


def test_a_stack_file_without_a_salt_passes(repository: Path) -> None:
    assert refused(repository, "Pulumi.spark.yaml", STACK) is None


@pytest.mark.parametrize("text", [STACK + SALT, SALT + STACK, f'"encryptionsalt": "v1:x"\n{STACK}'])
def test_a_stack_file_with_a_salt_is_refused_by_name_and_line(repository: Path, text: str) -> None:
    said = refused(repository, "Pulumi.my-model.yaml", text)
    assert said is not None
    assert "do not commit the line" in said
    assert "Pulumi.my-model.yaml" in said
    assert "encryptionsalt" in said


def test_a_salt_that_secrets_in_the_file_need_passes(repository: Path) -> None:
    secret = STACK + "  vllm-spark:apiKey:\n    secure: v1:x\n"
    assert refused(repository, "Pulumi.team.yaml", secret + SALT) is None
    assert refused(repository, "Pulumi.team.yaml", SALT + secret) is None


def test_other_files_may_speak_of_it(repository: Path) -> None:
    assert refused(repository, "notes.yaml", SALT) is None


def test_no_stack_file_of_this_repository_has_one() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing is committed")
    for name in git(ROOT, "ls-files", "Pulumi.*.yaml").splitlines():
        # What git has, not the file: a preview writes its salt into the file of the checkout.
        assert "encryptionsalt" not in git(ROOT, "show", f":{name}"), name


def test_every_program_that_a_hook_runs_is_one_of_the_development_requirements() -> None:
    requirements = (ROOT / "requirements-dev.txt").read_text()
    for hook in yaml.safe_load(CONFIG.read_text())["repos"][0]["hooks"]:
        if hook["language"] == "system":
            folder, _, name = hook["entry"].split()[0].rpartition("/")
            assert folder == ".venv/bin"
            assert f"\n{name}==" in requirements

"""Rollback, in order: no good deployment, good, broken, rollback, a newer one, automatic rollback.

The real Pulumi engine and the real Docker daemon; the fake server fails on demand.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml

from tests.e2e.project import FAKE_IMAGE, ROOT, Project, Run

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

BROKEN = {"fault": "exit"}
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MISNAMED = {"id": MODEL, "servedName": "another"}
"""The server refuses it, because the fake server serves `MODEL`. It needs no fetch."""
KEY = "key-of-ours"


def make(project: Project, target: str) -> Run:
    """`make` in the project, as in a checkout."""
    for name in (".tools", "requirements.txt"):
        if not (project.directory / name).exists():
            (project.directory / name).symlink_to(ROOT / name)
    for name in ("Makefile", "offline"):
        source = ROOT / name
        if source.is_file():
            shutil.copy(source, project.directory)
        elif not (project.directory / name).exists():
            shutil.copytree(source, project.directory / name)
    ended = subprocess.run(
        ["make", target, f"STACK={project.stack}"],
        cwd=project.directory,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    with (project.directory / "output.txt").open("a") as kept:
        kept.write(f"$ make {target}\n{ended.stdout}\n[exit {ended.returncode}]\n")
    return Run(ended.returncode, ended.stdout)


def config_file(project: Project) -> Path:
    return project.directory / f"Pulumi.{project.stack}.yaml"


def configure(project: Project, switches: dict[str, str], **keys: Any) -> None:
    """The fake server's config, with the API key encrypted once and kept, as a user would do it."""
    file = config_file(project)
    before = yaml.safe_load(file.read_text()) if file.exists() else {}
    project.configure_fake({"model": MODEL, **switches}, **keys)
    written = yaml.safe_load(file.read_text())
    # The hub would be tried for half a minute, where there is none.
    written["config"]["vllm-spark:container"]["environment"]["HF_HUB_OFFLINE"] = "1"
    if before:
        written["config"]["vllm-spark:apiKey"] = before["config"]["vllm-spark:apiKey"]
    file.write_text(yaml.safe_dump({**before, **written}))
    if not before:
        project.pulumi("config", "set", "--secret", "vllm-spark:apiKey", KEY)


def command_line(docker_client: docker.DockerClient, project: Project) -> str:
    return " ".join(docker_client.api.inspect_container(project.container)["Config"]["Cmd"])


def answers(project: Project) -> bool:
    url = f"http://127.0.0.1:{project.port}/v1/models"
    try:
        asked = requests.get(url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
    except requests.ConnectionError:
        return False
    return asked.status_code == 200


@pytest.fixture(scope="module")
def first_failed(project: Project) -> Run:
    """The first deployment of a stack, with a server that ends while it starts."""
    configure(project, BROKEN)
    return make(project, "up")


@pytest.fixture(scope="module")
def failed(project: Project, first_failed: Run) -> Run:
    """A deployment that answered, and a change of it that does not."""
    configure(project, {})
    good = project.up()
    assert good.code == 0, good.output
    configure(project, {}, model=MISNAMED, engine={"max-model-len": 2048, "max-num-seqs": 8})
    return make(project, "up")


@pytest.fixture(scope="module")
def went_back(project: Project, failed: Run) -> tuple[str, Run]:
    """The config file before, and the way back."""
    before = config_file(project).read_text()
    return before, make(project, "rollback")


@pytest.fixture(scope="module")
def reverted(project: Project, went_back: tuple[str, Run]) -> Run:
    """A newer deployment that answered, and one that fails with `revertOnFailure` set."""
    configure(project, {}, engine={"max-model-len": 2048, "max-num-seqs": 16})
    newer = project.up()
    assert newer.code == 0, newer.output
    refetched = {"environment": {"HF_HUB_DOWNLOAD_TIMEOUT": "9"}}
    configure(project, BROKEN, health={"revertOnFailure": True}, container=refetched)
    return make(project, "up")


def test_a_first_deployment_that_fails_has_nothing_to_go_back_to(
    project: Project, first_failed: Run
) -> None:
    assert first_failed.code != 0
    assert "There is nothing to go back to" in first_failed.output
    rollback = make(project, "rollback")
    assert rollback.code != 0
    assert "There is nothing to go back to" in rollback.output


def test_a_deployment_that_fails_says_how_to_go_back_and_to_what(
    project: Project, failed: Run
) -> None:
    assert failed.code != 0
    assert f"make rollback STACK={project.stack}" in failed.output
    assert f"{MODEL} with {FAKE_IMAGE}, which answered" in failed.output


def test_going_back_ends_when_the_last_good_deployment_answers(
    project: Project, went_back: tuple[str, Run], docker_client: docker.DockerClient
) -> None:
    _, rollback = went_back
    assert rollback.code == 0, rollback.output
    assert answers(project)
    assert "--max-num-seqs=4" in command_line(docker_client, project)
    assert "--revision" not in command_line(docker_client, project), "the same without saying so"


def test_going_back_says_what_changes_and_what_is_left_to_do(
    project: Project, went_back: tuple[str, Run]
) -> None:
    _, rollback = went_back
    assert "~ engine.max-num-seqs: 8 => 4" in rollback.output
    assert "- model.servedName: another" in rollback.output
    where = f"--stack {project.stack} --path vllm-spark:engine.max-num-seqs"
    assert f"pulumi config set {where} --type int -- 4" in rollback.output


def test_going_back_leaves_the_config_file_alone(
    project: Project, went_back: tuple[str, Run]
) -> None:
    before, _ = went_back
    assert config_file(project).read_text() == before


def test_going_back_keeps_secrets_secret(project: Project, went_back: tuple[str, Run]) -> None:
    _, rollback = went_back
    assert "vllm-spark:apiKey" in rollback.output, "it says which it takes"
    assert KEY not in rollback.output
    assert KEY not in project.pulumi("stack", "export").output


def test_going_back_twice_changes_nothing(
    project: Project, went_back: tuple[str, Run], docker_client: docker.DockerClient
) -> None:
    serving = docker_client.api.inspect_container(project.container)["Id"]
    again = make(project, "rollback")
    assert again.code == 0, again.output
    assert "Nothing to do" in again.output
    assert docker_client.api.inspect_container(project.container)["Id"] == serving


def test_a_preview_shows_what_the_config_file_would_change_again(
    project: Project, went_back: tuple[str, Run]
) -> None:
    preview = project.pulumi("preview", "--diff")
    assert preview.code == 0, preview.output
    # The stand-in shows one changed word, the official plugin one that goes and one that comes.
    assert re.search(r'- \[\d+\]: "--max-num-seqs=4"|"--max-num-seqs=4" => ', preview.output)
    assert re.search(r'\+ \[\d+\]: "--max-num-seqs=8"| => "--max-num-seqs=8"', preview.output)


def test_the_commands_it_gives_make_the_config_file_say_what_serves(
    project: Project, went_back: tuple[str, Run]
) -> None:
    _, rollback = went_back
    given = [line for line in rollback.output.splitlines() if line.startswith("  pulumi config")]
    subprocess.run(
        ["sh", "-ec", "\n".join(given)],
        cwd=project.directory,
        env=project.environment,
        check=True,
    )
    preview = project.pulumi("preview", "--expect-no-changes", "--diff")
    assert preview.code == 0, preview.output


def test_a_deployment_told_to_go_back_by_itself_fails_and_the_newest_good_one_serves(
    project: Project, reverted: Run, docker_client: docker.DockerClient
) -> None:
    assert reverted.code != 0, "what was asked for does not serve"
    told = [line for line in reverted.output.splitlines() if not line.startswith("make:")]
    assert any("What serves now is the last good one" in line for line in told[-1:]), told[-5:]
    assert answers(project)
    assert "--max-num-seqs=16" in command_line(docker_client, project)
    assert "--revision" in command_line(docker_client, project), (
        "fetched again, it has to be the same"
    )


def test_a_deployment_that_fails_before_the_old_server_stops_says_that_it_still_answers(
    project: Project, reverted: Run
) -> None:
    configure(project, {}, host={"memoryGiB": 1})
    up = make(project, "up")
    assert up.code != 0
    assert "What answered before still does, untouched" in up.output
    assert answers(project)


@pytest.mark.parametrize(
    ("pid", "sentence"),
    [(os.getpid(), "wait for it, then repeat"), (2**22 + 1, "was killed: there is no process")],
    ids=["alive", "killed"],
)
def test_a_stack_held_by_another_run_is_said_with_the_fix(
    project: Project, reverted: Run, pid: int, sentence: str
) -> None:
    locks = project.directory / "state" / ".pulumi" / "locks" / "organization" / "vllm-spark"
    lock = locks / project.stack / "other.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = {"pid": pid, "username": "me", "hostname": socket.gethostname()}
    lock.write_text(json.dumps({**holder, "timestamp": "2026-01-01T00:00:00Z"}))
    try:
        up = make(project, "up")
    finally:
        lock.unlink()
    assert up.code != 0
    assert sentence in up.output
    assert f'eval "$(make -s env)" && pulumi cancel --yes --stack {project.stack}' in up.output

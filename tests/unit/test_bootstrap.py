"""Making a machine ready: what a person reads when it cannot be, and what is set up once."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from offline.bootstrap import vllm_image
from vllm_spark.cli import prepare
from vllm_spark.errors import DockerUnavailable, SetupError
from vllm_spark.setup import environment, steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, with nobody logged in to Pulumi."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "STATE", tmp_path / ".state")
    monkeypatch.setattr(steps, "TOOLS", tmp_path / ".tools")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    return tmp_path


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_failed_step_shows_its_last_words_the_log_and_the_fix() -> None:
    with pytest.raises(SetupError) as failed:
        steps.run("try it", script("print('the reason'); exit(3)"), fix="do that")
    text = str(failed.value)
    assert "try it failed (exit code 3)" in text
    assert "| the reason" in text
    assert "fix: do that" in text


@pytest.mark.parametrize("words", ["No space left on device", "no space left on device"])
def test_a_full_disk_is_recognised_in_the_words_of_c_and_of_go(words: str) -> None:
    with pytest.raises(SetupError, match="free some disk"):
        full = script(f"print('write /layer: {words}'); exit(1)")
        steps.run("build", full, fix="do that")


def test_a_disk_too_small_for_the_image_is_found_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def info(self) -> dict[str, str]:
            return {"DockerRootDir": str(tmp_path)}

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100 << 30, 95 << 30, 5 << 30))
    with pytest.raises(SetupError, match=r"5 GiB free and the build needs 18") as failed:
        vllm_image._check_disk(Client())  # type: ignore[arg-type]
    assert "docker system df" in str(failed.value)


@pytest.mark.parametrize(
    ("labels", "current"),
    [
        (None, True),
        ({"maintainer": "vLLM"}, True),
        ({vllm_image.RECIPE_LABEL: vllm_image._recipe()}, True),
        ({vllm_image.RECIPE_LABEL: "another"}, False),
    ],
    ids=["pulled", "pulled, with labels", "built", "built from an older recipe"],
)
def test_only_an_image_that_was_built_here_from_another_recipe_is_built_again(
    labels: dict[str, str] | None, current: bool
) -> None:
    assert vllm_image._is_current({"Config": {"Labels": labels}}) is current


def test_a_remote_docker_that_is_silent_is_not_replaced_by_a_local_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(DockerUnavailable, match=r"unix:///nowhere\.sock \(DOCKER_HOST\)"):
        prepare.ensure_parts_of(None)


def test_state_and_passphrase_stay_in_the_checkout_and_are_made_once(checkout: Path) -> None:
    first = environment.exports({"PATH": "/bin"})
    assert first["no_grpc_proxy"] == "127.0.0.1,localhost"
    file = Path(first["PULUMI_CONFIG_PASSPHRASE_FILE"])
    passphrase = file.read_text()
    assert first["PULUMI_BACKEND_URL"] == (checkout / ".state").as_uri()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    environment.exports({"PATH": "/bin"})
    assert file.read_text() == passphrase


def test_a_full_disk_leaves_no_empty_passphrase(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fdopen", full)
        environment.exports({"PATH": "/bin"})
    assert not list((checkout / ".state").iterdir())
    made = environment.exports({"PATH": "/bin"})["PULUMI_CONFIG_PASSPHRASE_FILE"]
    assert len(Path(made).read_text()) > 30


def test_a_backend_a_login_and_a_passphrase_that_are_given_are_left_alone(checkout: Path) -> None:
    given = {"PATH": "/bin", "PULUMI_BACKEND_URL": "s3://ours", "PULUMI_CONFIG_PASSPHRASE": "x"}
    added = environment.exports(given)
    assert added["PULUMI_BACKEND_URL"] == "s3://ours"
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in added
    (checkout / "home").mkdir()
    (checkout / "home" / "credentials.json").write_text('{"current": "https://example.com"}')
    assert environment.exports({"PATH": "/bin"})["PULUMI_BACKEND_URL"] == "https://example.com"


def test_an_unknown_stack_is_answered_before_anything_is_made() -> None:
    command = [sys.executable, "-m", "vllm_spark", "up", "--stack", "sprak"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "Pulumi.sprak.yaml" in ran.stderr
    assert "spark" in ran.stderr
    assert "Traceback" not in ran.stderr

"""`vllm-spark caches`: what the cache holds, what nobody uses, and what is never removed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli import vllm_spark
from tests.fake_daemon import Container, FakeDaemon, refuses
from tests.fake_daemon_api import STDERR
from vllm_spark.cli import caches
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.serving import CACHE_PATH, compiled_by

IMAGE = "nvcr.io/nvidia/vllm:25.09-py3"


def settings(**keys: Any) -> Settings:
    config = {"model": "owner/model", "image": IMAGE, "cache": {"volume": "weights"}, **keys}
    return Settings.parse(config, frozenset())


@pytest.fixture
def image_id(daemon: FakeDaemon) -> str:
    return daemon.add_image(IMAGE)


@pytest.fixture
def folder(image_id: str, tmp_path: Path, daemon: FakeDaemon) -> Path:
    """The cache; what a container of the image would run is run here on it."""
    folder = tmp_path / "cache"
    for name, size in (
        ("models--owner--model/blobs/1", 2**21),
        (f"compiled/{compiled_by(IMAGE, image_id)}/kernel", 2**20),
        ("compiled/vllm-of-old-0123456789ab/kernel", 2**20),
        ("version.txt", 10),
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\1" * size)

    def process(container: Container) -> None:
        mounted = [str(folder) if word == CACHE_PATH else word for word in command_of(container)]
        ran = subprocess.run([sys.executable, *mounted], capture_output=True, check=False)
        container.prints(ran.stdout)
        container.prints(ran.stderr, STDERR)
        container.exits(ran.returncode)

    daemon.when_started = process
    return folder


def command_of(container: Container) -> list[str]:
    """The arguments of the Python that looks into the cache."""
    config, host = container.inspected["Config"], container.inspected["HostConfig"]
    assert config["Entrypoint"] == ["python3"]
    assert host["Binds"] == [f"weights:{CACHE_PATH}:rw"]
    return list(config["Cmd"])


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "load_stack", lambda _path: settings())
    monkeypatch.setattr(caches, "load_stack_if_ours", lambda _path: settings())


def test_everything_in_the_cache_is_listed_and_nothing_removed(folder: Path) -> None:
    ran = vllm_spark("caches", "--stack", "spark")
    assert ran.exit_code == 0
    said = ran.stdout
    assert said.startswith("cache weights\n")
    assert "weights     2.0 MiB  owner/model" in said
    assert "vllm-of-old-0123456789ab  (nobody uses it)" in said
    assert said.count("nobody uses it") == 1
    assert "`make caches ... PRUNE=1` removes what nobody uses; it never removes weights" in said
    assert "Weights go by hand: docker run --rm -v weights:/cache" in said
    assert (folder / "compiled" / "vllm-of-old-0123456789ab").exists()


def test_a_prune_removes_what_nobody_uses_and_nothing_else(folder: Path, image_id: str) -> None:
    ran = vllm_spark("caches", "--prune", "--json")
    told = json.loads(ran.stdout)
    assert told["pruned"]
    assert [part["name"] for part in told["parts"] if part["unused"]] == [
        "vllm-of-old-0123456789ab"
    ]
    left = [entry.name for entry in (folder / "compiled").iterdir()]
    assert left == [compiled_by(IMAGE, image_id)]
    assert (folder / "models--owner--model").exists()


def test_kernels_of_any_container_are_kept_though_it_does_not_run(
    folder: Path, daemon: FakeDaemon
) -> None:
    kernels = f"{CACHE_PATH}/compiled/vllm-of-old-0123456789ab/torch"
    daemon.add("old", Env=["A=b", f"TORCHINDUCTOR_CACHE_DIR={kernels}"], running=False)
    assert "nobody uses it" not in vllm_spark("caches").stdout


def test_kernels_of_an_image_that_may_be_pulled_again_are_kept(
    folder: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = settings(image="vllm/vllm-openai:v0.32.0")
    monkeypatch.setattr(caches, "load_stack_if_ours", lambda _path: other)
    (folder / "compiled" / compiled_by(other.image.name, "sha256:0123456789abcdef")).mkdir()
    lines = vllm_spark("caches").stdout.splitlines()
    (kept,) = [line for line in lines if compiled_by(other.image.name, "") in line]
    assert "nobody uses it" not in kept


def test_a_container_that_goes_while_it_is_asked_about_is_no_error(
    folder: Path, daemon: FakeDaemon
) -> None:
    gone = daemon.add("gone")
    daemon.fault(f"GET /containers/{gone.id}/json", refuses(404, "No such container"))
    assert vllm_spark("caches").exit_code == 0


def test_without_the_image_nobody_can_look_and_the_fix_is_said(daemon: FakeDaemon) -> None:
    ran = vllm_spark("caches", "--stack", "spark")
    assert ran.exit_code == 2
    assert f"the cache is looked into with {IMAGE}, which is not on this host" in ran.stderr
    assert "fix: make up STACK=spark, or docker pull it" in ran.stderr


def test_a_cache_that_cannot_be_mounted_is_told_in_dockers_words(
    image_id: str, daemon: FakeDaemon
) -> None:
    daemon.fault("/start", refuses(500, "error mounting /opt/hf: permission denied"))
    ran = vllm_spark("caches")
    assert ran.exit_code == 2
    assert "error mounting /opt/hf: permission denied" in ran.stderr
    assert daemon.containers == {}, "the container that was created is removed"


@pytest.mark.parametrize("listed", ["", "weights\t1\towner/model\n"], ids=["at once", "halfway"])
def test_a_cache_that_cannot_be_read_to_its_end_is_told_and_not_listed_in_part(
    listed: str, image_id: str, daemon: FakeDaemon
) -> None:
    def process(container: Container) -> None:
        container.prints(listed)
        container.prints("PermissionError: [Errno 13] Permission denied\n", STDERR)
        container.exits(1)

    daemon.when_started = process
    ran = vllm_spark("caches")
    assert ran.exit_code == 2
    assert "the cache cannot be read: PermissionError: [Errno 13]" in ran.stderr
    assert "owner/model" not in ran.stdout


def test_a_cache_that_takes_too_long_to_count_is_told(
    image_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "LIMIT_SECONDS", 0.0)
    ran = vllm_spark("caches")
    assert ran.exit_code == 2
    assert "the cache cannot be read: it takes longer than 0 s" in ran.stderr


def test_large_weights_are_told_in_gib_and_removed_by_hand_in_a_folder_of_the_host() -> None:
    parts = [caches.Part("weights", 3 * 2**30, "owner/model")]
    said = caches.report(settings(cache={"hostPath": "/opt/hf"}), parts, [], prune=False)
    assert "3.0 GiB" in said
    assert "sudo rm -r /opt/hf/models--OWNER--NAME" in said

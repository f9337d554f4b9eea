"""`make caches`: lists the content of the cache, and removes only unused kernels, never weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offline.bootstrap.vllm_image import IMAGE
from vllm_spark.cli.caches import report, swept
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.serving import compiled_by

pytestmark = pytest.mark.docker


@pytest.fixture
def cache(tmp_path: Path, docker_client: Any) -> Path:
    """Weights, an unrelated file, and the kernels of four images, one of them unused."""
    blobs = tmp_path / "models--some--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a").write_bytes(b"x" * (3 << 20))
    (tmp_path / "notes.txt").write_text("mine")
    image_id = docker_client.images.get(IMAGE).id
    for name in (
        compiled_by(IMAGE, image_id),
        compiled_by(IMAGE, "sha256:what-the-tag-was-before"),
        compiled_by("not/pulled:yet", "sha256:0123456789abcdef"),
        "of-a-container",
    ):
        (tmp_path / "compiled" / name).mkdir(parents=True)
        (tmp_path / "compiled" / name / "kernel").write_bytes(b"x" * (1 << 20))
    return tmp_path


@pytest.fixture
def told(cache: Path, docker_client: Any) -> Any:
    """Two stacks, one with an image that is not here; and a container created by hand."""

    def stack(image: str) -> Settings:
        config = {"model": "a/b", "image": image, "cache": {"hostPath": str(cache)}}
        return Settings.parse(config, frozenset())

    container = docker_client.containers.create(
        IMAGE,
        environment={"VLLM_CACHE_ROOT": "/root/.cache/huggingface/compiled/of-a-container/vllm"},
    )
    stacks = [stack(IMAGE), stack("not/pulled:yet")]

    def told(prune: bool) -> str:
        return report(stacks[0], *swept(docker_client, stacks[0], stacks, prune=prune), prune=prune)

    yield told
    container.remove()


def test_sizes_are_listed_and_kernels_that_nobody_uses_are_named(told: Any, cache: Path) -> None:
    lines = told(False).splitlines()
    assert any("weights" in line and "3.0 MiB  some/model" in line for line in lines)
    unused = [line for line in lines if "(nobody uses it)" in line]
    assert len(unused) == 1
    assert "what-the-tag" in unused[0]
    assert f"sudo rm -r {cache}/models--OWNER--NAME" in lines[-1]
    assert len(list((cache / "compiled").iterdir())) == 4, "listing removes nothing"


def test_pruning_removes_those_and_neither_weights_nor_anything_else(
    told: Any, cache: Path
) -> None:
    before = {path for path in cache.rglob("*") if path.is_file()}
    told(True)
    after = {path for path in cache.rglob("*") if path.is_file()}
    assert [path.parent.name for path in before - after] == [
        compiled_by(IMAGE, "sha256:what-the-tag-was-before")
    ]

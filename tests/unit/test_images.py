"""What an image's name tells, and the container command that follows from it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vllm_spark.errors import ConfigError
from vllm_spark.images import (
    ImageReference,
    Version,
    check_image,
    release_in,
    serve_command,
    vllm_version,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "registry", "repository", "tag", "digest"),
    [
        ("nvcr.io/nvidia/vllm:25.09-py3", "nvcr.io", "nvidia/vllm", "25.09-py3", None),
        ("vllm/vllm-openai:v0.28.0", "docker.io", "vllm/vllm-openai", "v0.28.0", None),
        ("localhost:5000/mine:1", "localhost:5000", "mine", "1", None),
        ("localhost/mine:1", "localhost", "mine", "1", None),
        (f"vllm/vllm-openai@{DIGEST}", "docker.io", "vllm/vllm-openai", None, DIGEST),
        (f"ubuntu:22.04@{DIGEST}", "docker.io", "ubuntu", "22.04", DIGEST),
    ],
)
def test_a_name_is_read_as_docker_reads_it(
    name: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    assert ImageReference.parse(name) == ImageReference(registry, repository, tag, digest)


@pytest.mark.parametrize("name", ["nvcr.io/nvidia/vllm", "localhost:5000/mine", "ubuntu"])
def test_a_name_without_tag_and_digest_is_refused_with_a_tag_to_give(name: str) -> None:
    with pytest.raises(ConfigError, match="neither tag nor digest") as refusal:
        ImageReference.parse(name)
    (problem,) = refusal.value.problems
    assert problem.where == "vllm-spark:image.name"
    assert f"{name}:" in problem.fix


@pytest.mark.parametrize(
    "name",
    ["", "a b:1", "vllm/:v1", "/vllm:v1", "vllm:", ":v1", "x@sha256:12", "http://x.io/y:1", "x:-1"],
)
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of an image"):
        ImageReference.parse(name)


def test_capitals_outside_the_tag_are_named_as_the_cause() -> None:
    with pytest.raises(ConfigError, match="capitals"):
        ImageReference.parse("nvcr.io/NVIDIA/vllm:25.09-py3")
    assert ImageReference.parse("mine:Build_7").tag == "Build_7"


@pytest.mark.parametrize(
    ("name", "family", "version", "is_cpu"),
    [
        ("nvcr.io/nvidia/vllm:25.09-py3", "ngc", "0.10.1.1", False),
        ("nvcr.io/nvidia/vllm:26.02-py3", "ngc", "0.15.1", False),
        ("nvcr.io/nvidia/vllm:29.01-py3", "ngc", None, False),
        ("mirror.example/nvidia/vllm:26.05-py3", "ngc", "0.20.1", False),
        ("vllm/vllm-openai:v0.28.0-cu130", "upstream", "0.28.0", False),
        ("vllm/vllm-openai:cu130-nightly", "upstream", None, False),
        (f"vllm/vllm-openai@{DIGEST}", "upstream", None, False),
        ("vllm/vllm-openai-cpu:v0.32.0-x86_64", "upstream", "0.32.0", True),
        ("mirror.example/vllm/vllm-openai:v0.11.0", "upstream", "0.11.0", False),
        ("ghcr.io/somebody/spark-vllm:1.2.3", "other", None, False),
        ("vllm-spark:cpu", "other", None, True),
        ("mine/cpuinfo:1", "other", None, False),
    ],
)
def test_the_name_tells_who_built_the_image_and_which_vllm_it_holds(
    name: str, family: str, version: str | None, is_cpu: bool
) -> None:
    reference = ImageReference.parse(name)
    assert reference.family == family
    assert vllm_version(reference) == (Version.parse(version) if version else None)
    assert reference.is_cpu is is_cpu


@pytest.mark.parametrize(
    ("name", "told", "command"),
    [
        ("nvcr.io/nvidia/vllm:25.09-py3", None, ["vllm", "serve", "a/b", "--x"]),
        ("ghcr.io/somebody/spark-vllm:1", None, ["vllm", "serve", "a/b", "--x"]),
        ("vllm/vllm-openai:v0.11.0", None, ["--model", "a/b", "--x"]),
        ("vllm/vllm-openai:v0.11.1", None, ["a/b", "--x"]),
        ("vllm/vllm-openai-cpu:v0.32.0-x86_64", None, ["a/b", "--x"]),
        ("vllm/vllm-openai:cu130-nightly", None, ["a/b", "--x"]),
        (f"vllm/vllm-openai@{DIGEST}", "0.10.2", ["--model", "a/b", "--x"]),
    ],
)
def test_the_command_follows_from_the_entrypoint_of_the_family_and_release(
    name: str, told: str | None, command: list[str]
) -> None:
    version = Version.parse(told) if told else None
    assert serve_command(ImageReference.parse(name), "a/b", ["--x"], version=version) == command


def test_releases_are_ordered_by_number_and_not_by_text() -> None:
    texts = ["0.9.2", "0.10.1", "0.10.1.1", "0.10.2", "0.11.0", "0.11.1", "0.28.0", "1.0.0"]
    releases = [Version.parse(text) for text in texts]
    assert all(older < newer for older, newer in pairwise(releases))
    assert [str(release) for release in releases] == texts


def test_a_release_is_the_same_however_it_is_written() -> None:
    spellings = ["0.11", "0.11.0", "v0.11.0", "0.11.0+cpu", "0.11.0-x86_64", "0.11.0rc1"]
    assert len({Version.parse(spelling) for spelling in spellings}) == 1
    with pytest.raises(ValueError, match="not a vLLM release"):
        Version.parse("nightly")


@pytest.mark.parametrize("tag", ["latest", "cu130-nightly"])
def test_a_tag_that_moves_is_warned_of_unless_a_digest_holds_it(tag: str) -> None:
    known = Version.parse("0.28.0")
    moving = ImageReference.parse(f"vllm/vllm-openai:{tag}")
    held = ImageReference.parse(f"vllm/vllm-openai:{tag}@{DIGEST}")
    assert [tag in warning.what for warning in check_image(moving, known)] == [True]
    assert check_image(held, known) == []


def test_an_image_of_unknown_release_is_warned_of_with_the_key_that_tells_it() -> None:
    reference = ImageReference.parse("ghcr.io/somebody/spark-vllm:1")
    (warning,) = check_image(reference, None)
    assert "vllm-spark:image.vllmVersion" in warning.fix


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("25.12.post1-py3", "0.11.1"),
        ("26.05.post1-py3", "0.20.1"),
        ("26.01-py3", None),
        ("26.06-py3", "0.22.1"),
        ("26.09-py3", "0.29.0"),
        ("26.10-py3", "0.31.0"),
        ("26.10.pre1-py3", None),
        ("27.01-py3", None),
    ],
)
def test_a_later_build_holds_the_same_vllm_and_a_preview_may_hold_another(
    tag: str, version: str | None
) -> None:
    found = vllm_version(ImageReference.parse(f"nvcr.io/nvidia/vllm:{tag}"))
    assert found == (Version.parse(version) if version else None)


@pytest.mark.parametrize(("tag", "doubtful"), [("26.01-py3", True), ("26.02-py3", False)])
def test_an_image_about_which_reports_disagree_is_a_warning(tag: str, doubtful: bool) -> None:
    reference = ImageReference.parse(f"nvcr.io/nvidia/vllm:{tag}")
    warnings = check_image(reference, vllm_version(reference))
    assert any("do not agree" in doubt.what for doubt in warnings) is doubtful


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("vllm/vllm-openai:v0.24.0", "0.24.0"),
        ("nvcr.io/nvidia/vllm:25.09-py3", "0.10.1.1"),
        ("vllm/vllm-openai:nightly", None),
        ("sha256:" + 64 * "0", None),
    ],
)
def test_the_release_in_a_container_is_that_of_its_image(image: str, release: str | None) -> None:
    assert release_in(image) == release

"""The image check in containers of real images, as the preflight runs it."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.types import Mount

from offline.bootstrap.vllm_image import IMAGE
from tests.e2e.project import FAKE_IMAGE
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import Gpu
from vllm_spark.deployment.serving import CACHE_PATH, compile_caches
from vllm_spark.docker_host import image_check
from vllm_spark.docker_host.image_check import ImageAnswer, ask_image
from vllm_spark.errors import Interrupted
from vllm_spark.images import Version

pytestmark = pytest.mark.docker

WITH_GPU = "vllm/vllm-openai:v0.32.0-fake-gpu"
DOCKERFILE = f"""
FROM {FAKE_IMAGE}
RUN printf '#!/bin/sh\\necho "$SMI"\\nexit $SMI_CODE\\n' > /usr/bin/nvidia-smi \\
 && chmod +x /usr/bin/nvidia-smi
"""
GPU = "0, GPU-5f2a, NVIDIA GB10, 12.1, [N/A], [N/A]"


def ask(image: str, **keys: Any) -> ImageAnswer:
    config = {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "image": {"name": image, "vllmVersion": "0.32.0"},
        "cache": {"volume": "vllm-spark-cache"},
        **keys,
    }
    settings = Settings.parse(config, frozenset())
    return ask_image(settings, about_flags=True)


@pytest.fixture(scope="module")
def gpu_image(docker_client: docker.DockerClient, fake_image: str) -> Iterator[str]:
    """An image whose `nvidia-smi` prints the variable SMI: a stand-in for NVIDIA's runtime."""
    docker_client.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), tag=WITH_GPU, rm=True)
    yield WITH_GPU
    docker_client.images.remove(WITH_GPU, force=True)


@pytest.fixture(scope="module")
def without_vllm(docker_client: docker.DockerClient) -> Iterator[str]:
    """An image in which no vLLM can be imported."""
    name = "vllm/vllm-openai-cpu:v0.32.0-without"
    missing = "raise ModuleNotFoundError(\"No module named 'vllm'\")"
    dockerfile = f"FROM {IMAGE}\nENV PYTHONPATH=/none\n"
    dockerfile += f"RUN mkdir /none && echo {shlex.quote(missing)} > /none/vllm.py\n"
    docker_client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=name, rm=True)
    yield name
    docker_client.images.remove(name, force=True)


def test_an_image_without_vllm_cannot_be_asked_which_is_no_refusal(without_vllm: str) -> None:
    answer = ask(without_vllm, container={"gpus": "none"})
    assert not answer.problems
    assert answer.version == Version.parse("0.32.0"), "the package is there, and does not load"
    assert "No module named 'vllm'" in answer.unknown


def test_a_gpu_that_is_visible_is_no_problem_and_tells_what_it_is(gpu_image: str) -> None:
    environment = {"SMI": GPU, "SMI_CODE": "0"}
    answer = ask(gpu_image, container={"environment": environment})
    assert answer == ImageAnswer(
        gpus=(Gpu("0", "GPU-5f2a", "NVIDIA GB10", "12.1", None, None),),
        version=Version.parse("0.32.0"),
    )
    assert answer.gpus[0].is_unified


IMAGE_ID = f"sha256:{uuid4().hex}"


def test_kernels_that_the_image_brings_are_kept_once(
    docker_client: docker.DockerClient, fake_image: str
) -> None:
    name, volume = f"vllm-spark-test:{uuid4().hex[:8]}", f"vllm-spark-test-{uuid4().hex[:8]}"
    kernels = (
        f"FROM {fake_image}\n"
        "ENV TRITON_CACHE_DIR=/opt/triton\n"
        "WORKDIR /root/.cache\n"
        "RUN mkdir -p vllm/aot flashinfer/0.6 /opt/triton /root/.tilelang/cache"
        " && echo kernel | tee vllm/aot/k flashinfer/0.6/k /opt/triton/k\n"
    )
    docker_client.images.build(fileobj=io.BytesIO(kernels.encode()), tag=name, rm=True)
    try:
        config = {
            "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "image": {"name": name, "vllmVersion": "0.32.0"},
            "cache": {"volume": volume},
            "container": {"gpus": "none"},
        }
        settings = Settings.parse(config, frozenset())
        found = ask_image(settings, about_flags=True, image_id=IMAGE_ID)
        assert sorted(source for source, _ in found.prebuilt) == [
            "/opt/triton", "/root/.cache/flashinfer", "/root/.cache/vllm",
        ]  # fmt: skip
        assert image_check.keep_prebuilt(settings, found) == []
        places = compile_caches(settings, IMAGE_ID)
        kept = [
            f"{places['VLLM_CACHE_ROOT']}/aot/k",
            f"{places['FLASHINFER_WORKSPACE_BASE']}/.cache/flashinfer/0.6/k",
            f"{places['TRITON_CACHE_DIR']}/k",
        ]
        mount = Mount(CACHE_PATH, volume)
        shown = docker_client.containers.run(
            name, kept, entrypoint="cat", mounts=[mount], remove=True
        )
        assert shown == b"kernel\n" * 3
        again = ask_image(settings, about_flags=True, image_id=IMAGE_ID)
        assert again.prebuilt == ()
    finally:
        docker_client.images.remove(name, force=True)
        docker_client.volumes.get(volume).remove(force=True)


def test_a_driver_that_does_not_fit_its_kernel_module_is_fixed_by_a_reboot(
    gpu_image: str,
) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    environment = {"SMI": said, "SMI_CODE": "18"}
    (problem,) = ask(gpu_image, container={"environment": environment}).problems
    assert said in problem.what
    assert "reboot" in problem.fix


def test_a_tool_parser_that_does_not_exist_is_refused_by_the_real_vllm() -> None:
    flags = {"enable-auto-tool-choice": True, "tool-call-parser": "nosuch"}
    answer = ask(IMAGE, container={"gpus": "none"}, engine=flags)
    (problem,) = answer.problems
    assert "there is no tool-call-parser named nosuch" in problem.what
    assert "hermes" in problem.fix


def test_an_image_that_does_not_answer_is_given_up(
    fake_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_check, "SCRIPT", "import time; time.sleep(600)")
    monkeypatch.setattr(image_check, "PATIENCE_SECONDS", 0)
    assert "did not answer" in ask(fake_image, container={"gpus": "none"}).unknown


def test_a_check_that_is_interrupted_ends_in_words(
    fake_image: str, monkeypatch: pytest.MonkeyPatch, ctrl_c: Callable[[], None]
) -> None:
    monkeypatch.setattr(image_check, "SCRIPT", "import time; time.sleep(600)")
    ctrl_c()
    with pytest.raises(Interrupted, match="interrupted"):
        ask(fake_image, container={"gpus": "none"})

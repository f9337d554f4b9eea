"""An aarch64 machine, rehearsed under QEMU: the CPU image is built for it and its vLLM starts.

On demand, `pytest -m emulated`: the build takes 20 minutes, and each import of torch minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from offline.bootstrap.vllm_image import build_cpu_image, is_here

pytestmark = [pytest.mark.docker, pytest.mark.emulated]

IMAGE = "vllm-spark-cpu:emulated-arm64"
CPUS = "/sys/devices/system/cpu"
NEOVERSE_N1 = "0x00000000413fd0c1"
"""The register MIDR_EL1 of a CPU that QEMU emulates."""


@pytest.fixture(scope="module")
def image(docker_client: docker.DockerClient) -> str:
    if not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        pytest.fail("this kernel runs no aarch64 programs; fix: apt-get install qemu-user-static")
    if not is_here(docker_client, IMAGE):
        build_cpu_image(docker_client, IMAGE, architecture="arm64")
    return IMAGE


@pytest.fixture(scope="module")
def cpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an aarch64 kernel tells of one CPU. QEMU shows the host's, and torch crashes on it."""
    folder = tmp_path_factory.mktemp("cpu")
    register = folder / "cpu0" / "regs" / "identification" / "midr_el1"
    register.parent.mkdir(parents=True)
    register.write_text(f"{NEOVERSE_N1}\n")
    for file in ("online", "possible", "present"):
        (folder / file).write_text("0\n")
    return folder


@pytest.fixture(scope="module")
def machine(docker_client: docker.DockerClient, image: str, cpus: Path) -> Iterator[Any]:
    """One container for all tests, so that Python compiles each module once."""
    container = docker_client.containers.run(
        image,
        ["infinity"],
        entrypoint="sleep",
        environment={"QEMU_CPU": "neoverse-n1"},
        volumes=[f"{cpus}:{CPUS}:ro"],
        detach=True,
    )
    yield container
    container.remove(force=True)


def run(machine: Any, *command: str) -> str:
    code, output = machine.exec_run(list(command))
    assert code == 0, output.decode()
    return str(output.decode().strip())


def test_the_image_is_one_for_aarch64(machine: Any) -> None:
    assert run(machine, "uname", "-m") == "aarch64"


def test_torch_computes_and_the_compiled_part_of_vllm_loads(machine: Any) -> None:
    program = "import torch, vllm._C; print(int((torch.ones(2, 3) @ torch.ones(3, 2)).sum()))"
    assert run(machine, "python", "-c", program).endswith("12")


def test_vllm_says_its_version(machine: Any) -> None:
    assert run(machine, "vllm", "--version").split()[-1].startswith("0.32.0")

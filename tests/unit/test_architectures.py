"""Everything is there for x86_64 and for aarch64: pinned packages, images, programs, runners."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.installed import program

ROOT = Path(__file__).resolve().parents[2]
IMAGE_LOCK = "offline/vllm_image/requirements.txt"
OURS, IMAGES = ["3.11", "3.12", "3.13"], ["3.11"]
LOCKS = [
    *(("requirements.txt", python) for python in OURS),
    *(("requirements-dev.txt", python) for python in OURS),
    *((IMAGE_LOCK, python) for python in IMAGES),
]
"""Each lock with each Python that it is for."""

X86_ONLY = {"intel-cmplr-lib-ur", "intel-openmp"}
"""What vLLM for the CPU wants on x86_64 alone."""

OF_X86 = re.compile(r"^(intel[-_]|mkl|tbb$|tcmlib$|umf$|daal|impi)")
"""The families of packages that Intel publishes for x86_64 alone."""

ONE_ARCHITECTURE = re.compile(r"x86[-_]64|amd64|[-_]x64\b|aarch64|arm64|goarch", re.IGNORECASE)
MAY_NAME_ONE = {
    "Pulumi.local.yaml": "a comment: its image is there for both",
    "offline/bootstrap/vllm_image.py": "a docstring: the daemon's own is built",
    "offline/vllm_image/Dockerfile": "a step that the other skips",
    "offline/vllm_image/requirements.in": "markers",
    "offline/vllm_image/requirements.txt": "markers",
    "offline/vllm_image/sbgemm.c": "a comment",
}
"""The files that name an architecture, and why that binds them to none."""


def pins(lock: str, python: str, machine: str) -> dict[str, str]:
    """What a lock installs on Linux, by package."""
    place = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine}
    place |= {"python_version": python, "python_full_version": f"{python}.9"}
    lines = [line.partition("#")[0].strip() for line in (ROOT / lock).read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line]
    return {
        pin.name: str(pin.specifier)
        for pin in wanted
        if pin.marker is None or pin.marker.evaluate(place)
    }


@pytest.mark.parametrize(("lock", "python"), LOCKS)
def test_a_lock_installs_the_same_on_both_but_for_what_is_intels(lock: str, python: str) -> None:
    x86, arm = pins(lock, python, "x86_64"), pins(lock, python, "aarch64")
    assert not [name for name in arm if OF_X86.match(name)]
    assert {name for name, _ in x86.items() ^ arm.items()} == (
        X86_ONLY if lock == IMAGE_LOCK else set()
    )


@pytest.mark.registry
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("lock", "python"), LOCKS)
def test_every_pinned_version_has_a_wheel(lock: str, python: str, machine: str) -> None:
    # glibc 2.36 is that of Debian 12, the oldest system that this project is for.
    place = ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_36"]
    resolved = subprocess.run(
        [program("uv"), "pip", "compile", "--no-deps", "--only-binary", ":all:", *place, lock],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert resolved.returncode == 0, resolved.stderr


def test_stacks_and_recipes_are_bound_to_no_architecture() -> None:
    files = [*ROOT.glob("Pulumi.*.yaml"), ROOT / "Makefile", *(ROOT / ".ci").iterdir()]
    for room in ("offline", "vllm_spark/setup", "vllm_spark/cli"):
        files += [file for file in (ROOT / room).rglob("*") if file.suffix not in (".pyc", ".sum")]
    names = {
        str(file.relative_to(ROOT))
        for file in files
        if file.is_file() and ONE_ARCHITECTURE.search(file.read_text())
    }
    assert names == MAY_NAME_ONE.keys()


def test_every_job_runs_on_both() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    for name, job in jobs.items():
        assert job["runs-on"] == "${{ matrix.os }}", name
        assert job["strategy"]["matrix"]["os"] == ["ubuntu-24.04", "ubuntu-24.04-arm"], name

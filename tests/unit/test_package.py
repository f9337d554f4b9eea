"""What pyproject.toml says of the package: declared imports, and locks that keep to its ranges."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.installed import program

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN_TIME = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
DEV = [Requirement(line) for line in PYPROJECT["dependency-groups"]["dev"]]


def locked(name: str) -> dict[str, Requirement]:
    """The lines of a requirements file, by package."""
    lines = (ROOT / name).read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported() -> None:
    checked = subprocess.run(
        [program("deptry"), "--no-ansi", *("vllm_spark", "components", "policy")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("file", "wanted"),
    [("requirements.txt", RUN_TIME), ("requirements-dev.txt", RUN_TIME + DEV)],
    ids=["run time", "development"],
)
def test_a_lock_has_one_version_of_each_dependency_and_within_its_range(
    file: str, wanted: list[Requirement]
) -> None:
    pins = locked(file)
    for requirement in wanted:
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not in {file}: run `make lock`"
        (version,) = re.findall(r"^==(.+)$", str(pin.specifier))
        assert requirement.specifier.contains(version), f"{pin}, not {requirement}: run `make lock`"


def test_both_locks_agree() -> None:
    development = locked("requirements-dev.txt")
    for name, pin in locked("requirements.txt").items():
        assert development[name].specifier == pin.specifier


def test_a_lock_names_no_place_to_download_from() -> None:
    for file in ("requirements.txt", "requirements-dev.txt", "offline/vllm_image/requirements.txt"):
        assert "://" not in (ROOT / file).read_text(), file


def test_the_package_is_typed() -> None:
    for package in ("vllm_spark", "components"):
        assert (ROOT / package / "py.typed").is_file()

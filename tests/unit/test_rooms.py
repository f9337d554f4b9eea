"""The rooms: imports go downwards only, each room says what it is for, and none gets crowded."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.installed import program

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("vllm_spark", "components", "offline")
MOST_MODULES = 14
ROOMS = sorted(
    folder.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for folder in (ROOT / package, *(ROOT / package).rglob("*"))
    if folder.is_dir() and any(folder.glob("*.py"))
)

UPWARD = {
    "vllm_spark/problems.py": "vllm_spark.errors",
    "vllm_spark/flags/checks.py": "vllm_spark.memory.plan",
    "vllm_spark/memory/plan.py": "vllm_spark.diagnosis.verdict",
    "vllm_spark/gate/probe.py": "vllm_spark.docker_host.connection",
    "vllm_spark/deployment/review.py": "vllm_spark.cli.fit",
    "vllm_spark/docker_host/connection.py": "offline.bootstrap",
    "vllm_spark/cli/status.py": "components.vllm_server",
    "vllm_spark/config/settings.py": "pulumi",
    "vllm_spark/in_image/checkpoint.py": "vllm_spark.errors",
}
"""A module, and what it must not import."""


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("lint-imports"), "--no-logo", "--no-cache"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignore)
    return folder


def test_the_rooms_import_downwards_only(copy: Path) -> None:
    checked = lint_imports(copy)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(("file", "above"), UPWARD.items())
def test_an_import_from_above_is_refused_by_name(copy: Path, file: str, above: str) -> None:
    module, importer = copy / file, file.removesuffix(".py").replace("/", ".")
    before = module.read_text()
    module.write_text(f"{before}\nimport {above}\n")
    try:
        checked = lint_imports(copy)
    finally:
        module.write_text(before)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert f"{importer} -> {above}" in checked.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room: str) -> None:
    face = ROOT / room / "__init__.py"
    assert face.is_file(), f"{room} has no __init__.py"
    assert ast.get_docstring(ast.parse(face.read_text()))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_few_enough_modules_to_see_at_a_glance(room: str) -> None:
    modules = [file for file in (ROOT / room).glob("*.py") if not file.stem.startswith("__")]
    assert len(modules) <= MOST_MODULES, f"make a sub-room of some of {room}"


def test_every_room_of_the_library_has_a_layer(copy: Path) -> None:
    """A room that no contract names could import anything."""
    (copy / "vllm_spark" / "attic").mkdir()
    (copy / "vllm_spark" / "attic" / "__init__.py").write_text('"""A room."""\n')
    checked = lint_imports(copy)
    shutil.rmtree(copy / "vllm_spark" / "attic")
    assert checked.returncode == 1
    assert "attic" in checked.stdout

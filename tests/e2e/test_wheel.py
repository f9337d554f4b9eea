"""The package as users install it: built, installed into an empty environment, and used there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installed import program
from vllm_spark import __version__

pytestmark = pytest.mark.registry

ROOT = Path(__file__).resolve().parents[2]
QWEN3_8B = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 36,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "intermediate_size": 12288,
    "tie_word_embeddings": False,
}


def run(*command: str | Path, cwd: Path) -> str:
    """The command's output. AssertionError unless it exits with code 0."""
    ran = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def bin_(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with only the package and its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    uv, python = program("uv"), folder / "venv" / "bin" / "python"
    # The wheel is built from the source archive, so this shows that the archive is complete.
    run(uv, "build", "--quiet", "--out-dir", folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    run(uv, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    install = (uv, "pip", "install", "--quiet", "--python", python)
    run(*install, "--constraints", ROOT / "requirements.txt", wheel, cwd=folder)
    return python.parent


def test_it_says_its_version(bin_: Path, tmp_path: Path) -> None:
    assert __version__ in run(bin_ / "vllm-spark", "--version", cwd=tmp_path)


def test_it_plans_a_stack_of_the_checkout_as_the_checkout_does(bin_: Path) -> None:
    stack = ("fit", "--stack", "spark")
    from_checkout = run(sys.executable, "-m", "vllm_spark", *stack, cwd=ROOT)
    assert run(bin_ / "vllm-spark", *stack, cwd=ROOT / "docs") == from_checkout


def test_it_brings_the_shapes_of_known_models(bin_: Path, tmp_path: Path) -> None:
    for file in ("Pulumi.yaml", "Pulumi.spark.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    assert "fits" in run(bin_ / "vllm-spark", "fit", "--stack", "spark", cwd=tmp_path)


def test_it_plans_a_config_json_in_an_empty_folder(bin_: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_8B))
    engine = "--engine=--gpu-memory-utilization 0.8"
    fit = ("fit", "--model", "config.json", engine, "--json")
    assert json.loads(run(bin_ / "vllm-spark", *fit, cwd=tmp_path))["fits"] == "yes"


def test_a_program_can_import_the_component_and_its_types(bin_: Path, tmp_path: Path) -> None:
    program_of_a_user = (
        "import components, vllm_spark, pathlib\n"
        "for package in (components, vllm_spark):\n"
        "    assert (pathlib.Path(package.__file__).parent / 'py.typed').is_file()\n"
        "components.VllmServer, components.VllmServerArgs\n"
    )
    run(bin_ / "python", "-c", program_of_a_user, cwd=tmp_path)

"""The make targets: what is written after STACK=, ENGINE= and their like reaches the program as is.

Real runs of make, in a folder of its own. `recorder` puts in Python's place a program that writes
down its arguments; `checkout` has the real one, so that its answers are seen too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HOSTILE = [
    "a b",
    "it's",
    'say "hi"',
    "a; touch ran",
    "a && touch ran",
    "a | touch ran",
    "a > ran",
    "a\ntouch ran",
    "$(touch ran)",
    "$$(touch ran)",
    "$(shell touch ran)",
    "$(if a,b",
    "`touch ran`",
    "$HOME ${HOME} $$HOME",
    "$",
    "a#b",
    "back\\slash\\",
    "%",
    "*",
    "(",
    ")",
    "--help",
    "-x",
    "--stack=other",
    "-",
    "Größe",
    '--hf-overrides {"a": {"b": 1}}',
    """--hf-overrides '{"a": {"b": 1}}'""",
]
VLLM_SPARK = ["-m", "vllm_spark"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile, in which everything that make would install is there."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("requirements.txt", "requirements-dev.txt"):
        (tmp_path / file).touch()
        os.utime(tmp_path / file, (0, 0))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "ready").touch()
    return tmp_path


def install_python(folder: Path, script: str) -> None:
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


@pytest.fixture
def recorder(folder: Path) -> Iterator[Path]:
    """Nothing but make itself may be run by a value: the folder stays as it is."""
    install_python(folder, "printf '%s\\0' \"$@\" >> arguments")
    before = set(folder.iterdir())
    yield folder
    assert set(folder.iterdir()) - before <= {folder / "arguments"}


@pytest.fixture
def checkout(folder: Path) -> Path:
    """A folder with the real program and the stacks of this checkout."""
    install_python(folder, f'exec {sys.executable} "$@"')
    for linked in ("vllm_spark", "models", *(file.name for file in ROOT.glob("Pulumi*.yaml"))):
        (folder / linked).symlink_to(ROOT / linked)
    return folder


def make(
    folder: Path, *words: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--silent", *words],
        cwd=folder,
        env=inherited | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def recorded(folder: Path, *words: str, **environment: str) -> list[str]:
    """What make hands to Python."""
    made = make(folder, *words, environment=environment)
    assert made.returncode == 0, made.stderr
    text = (folder / "arguments").read_text()
    (folder / "arguments").unlink()
    return text.split("\0")[:-1]


def arguments(folder: Path, target: str, **variables: str) -> list[str]:
    """What the target hands to Python when the variables are written after it."""
    return recorded(folder, target, *(f"{name}={value}" for name, value in variables.items()))


@pytest.mark.parametrize("value", HOSTILE)
def test_a_stack_reaches_every_command_as_it_was_written(recorder: Path, value: str) -> None:
    for target in ("up", "preview", "down", "caches"):
        assert arguments(recorder, target, STACK=value) == [
            *VLLM_SPARK,
            target,
            f"--stack={value}",
        ]
    for target in ("rollback", "status", "logs", "stop", "restart"):
        assert arguments(recorder, target, STACK=value, SERVER=value) == [
            *VLLM_SPARK,
            target,
            f"--stack={value}",
            f"--server={value}",
        ]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_model_flags_a_log_and_a_scenario_are_data(recorder: Path, value: str) -> None:
    fit = [*VLLM_SPARK, "fit"]
    engine, memory = f"--engine={value}", f"--memory-gib={value}"
    assert arguments(recorder, "fit", STACK=value, ENGINE=value, MEMORY_GIB=value) == [
        *fit,
        f"--stack={value}",
        engine,
        memory,
    ]
    assert arguments(recorder, "fit", MODEL=value, ENGINE=value) == [
        *fit,
        f"--model={value}",
        engine,
    ]
    assert arguments(recorder, "diagnose", LOG=value) == [*VLLM_SPARK, "diagnose", "--", value]
    bench = ["-m", "benchmarks", f"--runs={value}", "--", value]
    assert arguments(recorder, "bench", NAME=value, RUNS=value) == bench


@pytest.mark.parametrize("value", HOSTILE)
def test_a_switch_is_on_for_any_value_and_its_value_is_not_run(recorder: Path, value: str) -> None:
    status = [*VLLM_SPARK, "status", "--stack=local", "--json"]
    assert arguments(recorder, "status", JSON=value) == status
    caches = [*VLLM_SPARK, "caches", "--stack=local", "--prune"]
    assert arguments(recorder, "caches", PRUNE=value) == caches
    assert arguments(recorder, "bench", RECORD=value) == ["-m", "benchmarks", "--record", "--"]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_of_the_environment_is_data_too(recorder: Path, value: str) -> None:
    assert recorded(recorder, "status", STACK=value, SERVER=value, JSON=value) == [
        *VLLM_SPARK,
        "status",
        f"--stack={value}",
        f"--server={value}",
        "--json",
    ]


def test_without_values_stack_local_is_meant(recorder: Path) -> None:
    assert arguments(recorder, "status") == [*VLLM_SPARK, "status", "--stack=local"]
    assert arguments(recorder, "status", STACK="") == [*VLLM_SPARK, "status", "--stack=local"]
    assert arguments(recorder, "fit") == [*VLLM_SPARK, "fit", "--stack=local"]


@pytest.mark.parametrize(
    "engine",
    [
        '--hf-overrides {"a": {"b": 1}} --max-num-seqs 8',
        '--hf-overrides={"a": {"b": 1}} --max-num-seqs 8',
        """--hf-overrides '{"a": {"b": 1}}' --max-num-seqs 8""",
        """--hf-overrides "{\\"a\\": {\\"b\\": 1}}" --max-num-seqs=8""",
    ],
)
def test_fit_plans_with_a_flag_whose_value_is_json(checkout: Path, engine: str) -> None:
    plain = make(checkout, "fit", "STACK=spark", "ENGINE=--max-num-seqs 8", "JSON=1")
    made = make(checkout, "fit", "STACK=spark", f"ENGINE={engine}", "JSON=1")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == json.loads(plain.stdout)


@pytest.mark.parametrize("value", ["spark; touch ran", "$(touch ran)", "it's", "--help"])
@pytest.mark.parametrize("target", ["fit STACK", "fit MODEL", "diagnose LOG"])
def test_a_name_that_is_not_there_is_in_the_error(checkout: Path, target: str, value: str) -> None:
    name, variable = target.split()
    made = make(checkout, name, f"{variable}={value}")
    assert made.returncode != 0
    assert value in made.stderr
    assert "fix:" in made.stderr
    assert "Traceback" not in made.stderr
    assert not (checkout / "ran").exists()


def test_a_log_may_have_any_name(checkout: Path) -> None:
    log = ROOT / "tests" / "data" / "logs" / "port_taken.log"
    for name in ("--json", '$(touch ran) it\'s; "one".log'):
        shutil.copy(log, checkout / name)
        made = make(checkout, "diagnose", f"LOG={name}", "JSON=1")
        assert json.loads(made.stdout)["verdict"] == "failed", made.stderr
    assert not (checkout / "ran").exists()

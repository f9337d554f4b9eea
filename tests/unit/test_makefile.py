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
    install_python(folder, "[ $1 = -V ] && exit\nprintf '%s\\0' \"$@\" END >> arguments")
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


def recorded(folder: Path, *words: str, **environment: str) -> list[list[str]]:
    """The arguments that make hands to Python, one list a target."""
    made = make(folder, *words, environment=environment)
    assert made.returncode == 0, made.stderr
    texts = (folder / "arguments").read_text().removesuffix("END\0").split("END\0")
    (folder / "arguments").unlink()
    return [text.split("\0")[:-1] for text in texts]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_stack_reaches_every_command_as_it_was_written(recorder: Path, value: str) -> None:
    stack, server = f"--stack={value}", f"--server={value}"
    of_all, of_one = ["up", "preview", "down"], ["rollback", "status", "logs", "stop", "restart"]
    assert recorded(recorder, *of_all, *of_one, f"STACK={value}", f"SERVER={value}") == [
        *([*VLLM_SPARK, target, stack] for target in of_all),
        *([*VLLM_SPARK, target, stack, server] for target in of_one),
    ]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_model_flags_a_log_and_a_scenario_are_data(recorder: Path, value: str) -> None:
    variables = [f"{name}={value}" for name in ("STACK", "ENGINE", "MEMORY_GIB", "LOG")]
    measured = [f"{name}={value}" for name in ("NAME", "RUNS")]
    engine, memory = f"--engine={value}", f"--memory-gib={value}"
    assert recorded(recorder, "fit", "diagnose", "bench", *variables, *measured) == [
        [*VLLM_SPARK, "fit", f"--stack={value}", engine, memory],
        [*VLLM_SPARK, "diagnose", "--", value],
        ["-m", "benchmarks", f"--runs={value}", "--", value],
    ]
    host = [f"{name}={value}" for name in ("MODEL", "VLLM", "HOST")]
    assert recorded(recorder, "fit", *host) == [
        [*VLLM_SPARK, "fit", f"--model={value}", f"--vllm={value}", f"--host={value}"]
    ]
    hub = [f"{name}={value}" for name in ("ID", "REVISION")]
    assert recorded(recorder, "model", *hub) == [
        [*VLLM_SPARK, "model", f"--revision={value}", "--", value]
    ]
    assert recorded(recorder, "diagnose", f"CONTAINER={value}") == [
        [*VLLM_SPARK, "diagnose", f"--container={value}"]
    ]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_switch_is_on_for_any_value_and_its_value_is_not_run(recorder: Path, value: str) -> None:
    switches = [f"{name}={value}" for name in ("JSON", "PRUNE", "RECORD")]
    assert recorded(recorder, "status", "caches", "bench", *switches) == [
        [*VLLM_SPARK, "status", "--stack=local", "--json"],
        [*VLLM_SPARK, "caches", "--stack=local", "--prune", "--json"],
        ["-m", "benchmarks", "--record", "--"],
    ]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_of_the_environment_is_data_too(recorder: Path, value: str) -> None:
    assert recorded(recorder, "status", STACK=value, SERVER=value, JSON=value) == [
        [*VLLM_SPARK, "status", f"--stack={value}", f"--server={value}", "--json"]
    ]


def test_an_environment_that_does_not_run_here_is_made_anew(folder: Path) -> None:
    (folder / ".venv" / "bin" / "python").write_bytes(b"\x7fELF of another processor")
    planned = make(folder, "--dry-run", "status")
    assert "python_packages.py requirements.txt .venv/ready" in planned.stdout
    install_python(folder, "exit 0")
    assert "python_packages.py" not in make(folder, "--dry-run", "status").stdout


def test_without_values_stack_local_is_meant(recorder: Path) -> None:
    local = [[*VLLM_SPARK, "status", "--stack=local"], [*VLLM_SPARK, "fit", "--stack=local"]]
    assert recorded(recorder, "status", "fit") == local
    assert recorded(recorder, "status", "fit", "STACK=") == local


def test_fit_plans_with_a_flag_whose_value_is_json(checkout: Path) -> None:
    def plan(engine: str) -> object:
        made = make(checkout, "fit", "STACK=spark", f"ENGINE={engine}", "JSON=1")
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)

    without = plan("--max-num-seqs 8")
    assert plan('--hf-overrides {"a": {"b": 1}} --max-num-seqs 8') == without
    assert plan("""--hf-overrides='{"a": {"b": 1}}' --max-num-seqs 8""") == without


@pytest.mark.parametrize("target", ["fit STACK", "fit MODEL", "diagnose LOG"])
def test_a_name_that_is_not_there_is_in_the_error(checkout: Path, target: str) -> None:
    name, variable = target.split()
    value = "--help it's; touch ran; $(touch ran)"
    made = make(checkout, name, f"{variable}={value}")
    assert made.returncode != 0
    assert value in made.stderr
    assert "fix:" in made.stderr
    assert "Traceback" not in made.stderr
    assert not (checkout / "ran").exists()


def test_status_asks_pulumi_for_the_stack_as_it_was_written(checkout: Path) -> None:
    pulumi = checkout / "pulumi"
    pulumi.write_text(
        "#!/bin/sh\n"
        '[ "$1" = version ] && echo v3.259.0 && exit\n'
        "printf '%s\\0' \"$@\" > asked\n"
        "echo '{\"deployment\": {}}'\n"
    )
    pulumi.chmod(0o755)
    stack = "--help it's; touch ran; $(touch ran)"
    path = f"{checkout}{os.pathsep}{os.environ['PATH']}"
    made = make(checkout, "status", f"STACK={stack}", environment={"PATH": path})
    assert f"stack {stack} is not up" in made.stdout, made.stderr
    asked = (checkout / "asked").read_text().split("\0")[:-1]
    assert asked == ["stack", "export", "--stack", stack]
    assert not (checkout / "ran").exists()


def test_a_log_may_have_any_name(checkout: Path) -> None:
    log = ROOT / "tests" / "data" / "logs" / "port_taken.log"
    for name in ("--json", '$(touch ran) it\'s; "one".log'):
        shutil.copy(log, checkout / name)
        made = make(checkout, "diagnose", f"LOG={name}", "JSON=1")
        assert json.loads(made.stdout)["verdict"] == "failed", made.stderr
    assert not (checkout / "ran").exists()

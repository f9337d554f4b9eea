"""The time of a run with nothing to do, and how it grows with the number of servers."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import yaml

from benchmarks.report import spread, table
from tests.e2e.fake_image import build_fake_image
from tests.e2e.project import FAKE_IMAGE, ROOT, Project

RUNS = 7
SERVERS = (1, 5, 10, 20)
FEW_RUNS = 3
"""The runs with many servers."""

MANY_COMMANDS = {"`pulumi preview`": ("preview",), "`pulumi up`": ("up", "--yes")}
COMMANDS = {
    **MANY_COMMANDS,
    "`make up`: with a refresh, without a preview": ("up", "--yes", "--skip-preview", "--refresh"),
}
NOTHING_TO_DO = ("--expect-no-changes",)


def measure(runs: int) -> str:
    """Two tables: this program next to a minimal one, and programs with many servers."""
    build_fake_image(docker.from_env())
    return f"{_beside_minimal(runs)}\n\n{_many(min(runs, FEW_RUNS))}"


def _beside_minimal(runs: int) -> str:
    with _project("benchmark") as ours, _project("minimal") as minimal:
        ours.configure_fake({})
        _run(ours, "up", "--yes")
        kinds = _kinds(ours)
        _make_minimal(minimal, kinds)
        _run(minimal, "up", "--yes")
        assert len(_kinds(minimal)) == len(kinds)
        rows = []
        for name, command in COMMANDS.items():
            pairs = [
                (_run(ours, *command, *NOTHING_TO_DO), _run(minimal, *command, *NOTHING_TO_DO))
                for _ in range(runs)
            ]
            mine, others = zip(*pairs, strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            rows.append([name, spread(mine), spread(others), f"{ratio:.2f}"])
    head = ["nothing to do", "this program, s", "a minimal one, s", "ratio, median of pairs"]
    return table(head, rows) + f"\n\n{len(kinds)} resources each, {runs} runs each, in turn."


def _many(runs: int) -> str:
    rows = []
    with _project("many") as project:
        program = ROOT / "benchmarks" / "many_servers_program.py"
        shutil.copy(program, project.directory / "__main__.py")
        for servers in SERVERS:
            project.configure_fake({}, state="stopped")
            _configure(project, {"many:servers": servers})
            began = time.monotonic()
            _run(project, "up", "--yes", "--skip-preview")
            took = time.monotonic() - began
            times = {
                name: [_run(project, *command, *NOTHING_TO_DO) for _ in range(runs)]
                for name, command in MANY_COMMANDS.items()
            }
            rows.append([
                str(servers), str(len(_kinds(project))), f"{took:.1f}", *map(spread, times.values())
            ])  # fmt: skip
    head = [
        "servers",
        "resources",
        "up that adds them, s",
        *(f"{name}, s" for name in MANY_COMMANDS),
    ]
    note = f"None of them is started. {runs} runs each where nothing is to do."
    return f"{table(head, rows)}\n\n{note}"


@contextmanager
def _project(stack: str) -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        project = Project(Path(directory), stack)
        try:
            yield project
        finally:
            project.pulumi("destroy", "--yes")


def _run(project: Project, *arguments: str) -> float:
    """Run `pulumi`; the seconds it takes. RuntimeError if it fails."""
    began = time.monotonic()
    ended = project.pulumi(*arguments)
    took = time.monotonic() - began
    if ended.code != 0:
        raise RuntimeError(ended.output)
    return took


def _kinds(project: Project) -> list[str]:
    """The types of the stack's resources, without the stack and the providers."""
    state = json.loads(project.pulumi("stack", "export").output)
    kinds = [str(resource["type"]) for resource in state["deployment"]["resources"]]
    return [kind for kind in kinds if not kind.startswith("pulumi:")]


def _make_minimal(project: Project, kinds: list[str]) -> None:
    """Replace the project's program with the minimal one, with resources of these types."""
    runtime = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["runtime"]
    about = {"name": "minimal", "runtime": runtime}
    (project.directory / "Pulumi.yaml").write_text(yaml.safe_dump(about))
    shutil.copy(ROOT / "benchmarks" / "minimal_program.py", project.directory / "__main__.py")
    _configure(
        project,
        {
            "minimal:types": kinds,
            "minimal:image": FAKE_IMAGE,
            "minimal:volume": "vllm-spark-cache",
            "minimal:container": project.container,
        },
    )


def _configure(project: Project, keys: dict[str, Any]) -> None:
    """Add these keys to the stack's config."""
    file = project.directory / f"Pulumi.{project.stack}.yaml"
    given = yaml.safe_load(file.read_text())["config"] if file.exists() else {}
    file.write_text(yaml.safe_dump({"config": {**given, **keys}}))

"""The delay from the server's first possible answer to the end of the wait."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.models.containers import Container

from benchmarks.report import spread, table
from benchmarks.waits import Start, Waited, by_compose, by_gate
from tests.e2e.fake_image import build_fake_image
from tests.e2e.gate_process import GateProcess
from tests.e2e.project import Project

RUNS = 20
FIRST_LOAD, STEP, INTERVAL = 3.0, 0.618, 5.0
"""Seconds. The load times are spread over the interval of compose's healthcheck, so that the result
does not depend on one moment of it."""

GATE = "the health gate alone"
UP = "all of `pulumi up`, to its exit"
COMPOSE = "`docker compose up --wait`, healthcheck every 5 s, to its exit"


def measure(runs: int) -> str:
    """Measure each of the three waits `runs` times, in turn."""
    build_fake_image(docker.from_env())
    delays: dict[str, list[float]] = {GATE: [], UP: [], COMPOSE: []}
    with GateProcess() as gate, _project() as project:
        for run in range(runs):
            start = Start({"load": f"{FIRST_LOAD + run * STEP % INTERVAL:.2f}"})
            with by_gate(gate, start) as waited:
                delays[GATE].append(_delay(waited))
            delays[UP].append(_delay(_by_up(project, start)))
            with by_compose(start) as waited:
                delays[COMPOSE].append(_delay(waited))
    rows = [[way, spread(values)] for way, values in delays.items()]
    return table([f"waited with, {runs} runs each", "seconds"], rows)


def _delay(waited: Waited) -> float:
    assert waited.good, waited.message
    return waited.after_logged()


@contextmanager
def _project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        project = Project(Path(directory), "benchmark")
        yield project
        project.pulumi("destroy", "--yes")


def _by_up(project: Project, start: Start) -> Waited:
    """Wait with all of `pulumi up`, for a container that it replaces."""
    project.configure_fake(dict(start.switches))
    up = project.up()
    ended = time.time()
    container: Container = docker.from_env().containers.get(project.container)
    return Waited(container, up.code == 0, up.output, ended)

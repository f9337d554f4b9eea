"""The gate's own CPU time and memory: while it waits, and while it reads a very long log."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import docker
import grpc  # type: ignore[import-untyped]

from benchmarks.report import spread, table
from benchmarks.waits import MODEL, gate_properties
from tests.e2e.fake_image import build_fake_image
from tests.e2e.gate_process import GateProcess
from tests.e2e.project import FAKE_IMAGE

RUNS = 3
WAIT_SECONDS = 600
LINES = (250_000, 1_000_000)
"""If the gate reads the log once, four times the lines take four times the CPU time."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """The cost of one gate: seconds, CPU seconds, and resident MiB early and late."""

    seconds: float
    cpu: float
    early: float
    late: float


def measure(runs: int) -> str:
    """Measure the long wait once, and each long log `runs` times."""
    build_fake_image(docker.from_env())
    long = {"load": str(WAIT_SECONDS), "deadline": str(2 * WAIT_SECONDS)}
    waiting = _cost(long, WAIT_SECONDS)
    rows = [_row(f"{WAIT_SECONDS} s of silence", [waiting], f"{waiting.cpu / waiting.seconds:.2%}")]
    for lines in LINES:
        # The gate reports a failure at the end of the log only after it has read all of it.
        flood = {"load": "1", "fault": f"noise-{lines},mute"}
        costs = [_cost(flood, 4) for _ in range(runs)]
        per_second = f"{spread([lines / cost.cpu for cost in costs], 0)} lines a CPU second"
        rows.append(_row(f"a log of {lines:,} lines", costs, per_second))
    head = ["the gate reads", "runs", "took s", "CPU s", "that is", "MiB at a quarter", "MiB late"]
    return table(head, rows)


def _row(what: str, costs: list[Cost], rate: str) -> list[str]:
    return [
        what,
        str(len(costs)),
        spread([cost.seconds for cost in costs], 1),
        spread([cost.cpu for cost in costs]),
        rate,
        spread([cost.early for cost in costs], 1),
        spread([cost.late for cost in costs], 1),
    ]


def _cost(switches: dict[str, str], guess: float) -> Cost:
    """Measure one gate that runs for about `guess` seconds."""
    environment = {f"FAKE_{name.upper()}": value for name, value in switches.items()}
    container = docker.from_env().containers.run(
        FAKE_IMAGE, [MODEL], environment=environment, ports={"8000/tcp": ("127.0.0.1", 0)},
        detach=True,
    )  # fmt: skip
    try:
        with GateProcess() as gate:
            resident: list[float] = []
            over = threading.Event()
            process = Path(f"/proc/{gate.process.pid}")
            watcher = threading.Thread(target=_watch, args=(process, guess, resident, over))
            before, began = _cpu(process), time.monotonic()
            watcher.start()
            try:
                gate.create(gate_properties(container, stallSeconds="3600", timeoutSeconds="3600"))
            except grpc.RpcError as error:
                assert "cache blocks" in error.details(), error.details()
            seconds = time.monotonic() - began
            cpu = _cpu(process) - before
            over.set()
            watcher.join()
            return Cost(seconds, cpu, resident[len(resident) // 4], resident[-1])
    finally:
        container.remove(force=True)


def _watch(process: Path, guess: float, resident: list[float], over: threading.Event) -> None:
    """Record the resident MiB about fifty times."""
    while not over.wait(guess / 50):
        resident.append(_resident(process))
    resident.append(_resident(process))


def _resident(process: Path) -> float:
    line = next(x for x in (process / "status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1024


def _cpu(process: Path) -> float:
    """CPU seconds of the process, in user and kernel mode."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS

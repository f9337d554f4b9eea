"""A start that fails: when it is noticed, and in which words."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import docker

from benchmarks.report import quoted, spread, table
from benchmarks.waits import Start, Waited, by_compose, by_gate
from tests.e2e.fake_image import build_fake_image
from tests.e2e.gate_process import GateProcess
from tests.fake_server import READY

RUNS = 20
SLOW_RUNS = 3
"""Of those in which somebody waits for a clock to run out."""

LOAD = "3"
"""Seconds after which it happens, so that both are waiting by then."""


@dataclass(frozen=True)
class Fault:
    """What happens, as a reader and the fake server know it.

    `logged` is the line of the log at which it happens; without one it is the end of the process.
    """

    what: str
    fault: str
    restart: Literal["no", "unless-stopped"] = "no"
    logged: str | None = None


FAULTS = (
    Fault("ends with code 1", "exit-1"),
    Fault("ends with code 0", "exit-0"),
    Fault("ends with code 1, `unless-stopped`", "exit-1", "unless-stopped"),
    Fault("fails in its log, lives on", "mute", logged="EngineCore failed to start"),
    Fault("accepts, never answers", "hang", logged=READY),
    Fault("/health is 200, completions hang", "wedge", logged=READY),
)


@dataclass
class Seen:
    """Of one fault by one way of waiting: the seconds, and what was said, of all runs."""

    seconds: list[float] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)

    def add(self, fault: Fault, waited: Waited) -> None:
        """One run."""
        logged = fault.logged
        self.seconds.append(waited.after_logged(logged) if logged else waited.after_death())
        name = str(waited.container.name)
        words = quoted(waited.words.replace(name, "server"))
        self.said[f"{'**green**' if waited.good else 'red'} {words}"] += 1

    def cells(self) -> list[str]:
        """Seconds, and verdict with words, the most frequent first."""
        return [spread(self.seconds), ", or ".join(said for said, _ in self.said.most_common())]


def measure(runs: int) -> str:
    """Every fault, waited for in both ways; all faults at a time, since it is mostly waiting."""
    build_fake_image(docker.from_env())
    with ThreadPoolExecutor(len(FAULTS)) as pool:
        rows = list(pool.map(lambda fault: _of(fault, runs), FAULTS))
    head = ["the server", "runs", "the gate: s", "and says", "compose: s", "and says"]
    return table(head, rows)


def _of(fault: Fault, runs: int) -> list[str]:
    if fault.logged is not None:
        runs = min(runs, SLOW_RUNS)
    start = Start({"load": LOAD, "fault": fault.fault}, fault.restart)
    gate, compose = Seen(), Seen()
    with GateProcess() as process:
        for _ in range(runs):
            with by_gate(process, start) as waited:
                gate.add(fault, waited)
            with by_compose(start) as waited:
                compose.add(fault, waited)
    return [fault.what, str(runs), *gate.cells(), *compose.cells()]

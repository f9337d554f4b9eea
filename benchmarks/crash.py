"""A start that fails: how soon each wait reports it, and with which message."""

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
"""The runs of scenarios that wait for a time limit."""

LOAD = "3"
"""Seconds until the fault, long enough that both waits have begun."""


@dataclass(frozen=True)
class Fault:
    """A fault: its description in the table, and its name in the fake server.

    It begins with the log line `logged`; if that is None, with the end of the process.
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
    """The results of one fault with one way of waiting: seconds, and messages with their counts."""

    seconds: list[float] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)

    def add(self, fault: Fault, waited: Waited) -> None:
        """Add one run."""
        logged = fault.logged
        self.seconds.append(waited.after_logged(logged) if logged else waited.after_death())
        name = str(waited.container.name)
        message = quoted(waited.message.replace(name, "server"))
        self.messages[f"{'**green**' if waited.good else 'red'} {message}"] += 1

    def cells(self) -> list[str]:
        """Two cells: the seconds, and the verdicts with their messages, most frequent first."""
        return [spread(self.seconds), ", or ".join(text for text, _ in self.messages.most_common())]


def measure(runs: int) -> str:
    """Measure every fault with both ways of waiting. The faults run in parallel: most only wait."""
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

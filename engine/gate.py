"""Decides whether a start has succeeded: the container on one side, its answers on the other.

A verdict belongs to one start of one container. The gate never sleeps blindly: it wakes when the
log moves or ends, so a crash is known at once, and it asks over HTTP in a thread, so that a server
that takes a request and never answers cannot hide that its container has died meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.probe import HUNG_MEND, NotYet, Probe, Ready, Refused

POLL_SECONDS = 1.0
EAGER_POLL_SECONDS = 0.1
PROGRESS_SECONDS = 10.0
DAEMON_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class ContainerState:
    """What the Docker engine says of a container. `start` names one start of it."""

    running: bool
    start: str
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True)
class Gone:
    """There is no such container."""


@dataclass(frozen=True)
class CouldNotAsk:
    """The Docker engine did not say. It never means gone, stopped or healthy."""

    why: str


class Watch(Protocol):
    """The container's side."""

    def state(self) -> ContainerState | Gone | CouldNotAsk:
        """Ask the Docker engine now."""

    def lines(self) -> list[str]:
        """The log lines that came since the last call."""

    def ended(self) -> bool:
        """Whether the log has ended, as it does when the container stops."""

    def wait(self, seconds: float) -> None:
        """Return when a line comes or the log ends, and after `seconds` at the latest."""


@dataclass(frozen=True)
class Healthy:
    """The model answered; `seconds` since the gate began, `answer` of its one request."""

    seconds: float
    answer: Ready
    start: str


@dataclass(frozen=True)
class Failed:
    """It did not and will not: one line cause, one line mend, and the lines that prove it."""

    cause: str
    mend: str
    evidence: tuple[str, ...] = ()


class _Question:
    """One exchange with the server in a thread of its own, given up after `limit` seconds."""

    def __init__(self, ask: Callable[[], object], limit: float, *, final: bool = False) -> None:
        self.final = final
        self.deadline = time.monotonic() + limit
        self.outcome: object = None
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(ask,), daemon=True).start()

    def _run(self, ask: Callable[[], object]) -> None:
        self.outcome = ask()
        self.done.set()


class Gate:
    """One wait for one start. `report` gets a line of progress at a time; `run` the verdict."""

    def __init__(
        self,
        watch: Watch,
        probe: Probe,
        report: Callable[[str], None],
        *,
        timeout_seconds: float,
    ) -> None:
        self._watch = watch
        self._probe = probe
        self._report = report
        self._timeout = timeout_seconds
        self._began = time.monotonic()
        self._tail: deque[str] = deque(maxlen=15)
        self._start: str | None = None
        self._heard = self._began
        self._why = "the container was created"
        self._question: _Question | None = None
        self._next_question = self._began
        self._next_report = self._began + PROGRESS_SECONDS
        self._next_look = self._began

    def run(self) -> Healthy | Failed:
        """Wait until the model answers, or cannot any more, or the time is over."""
        while True:
            self._tail.extend(self._watch.lines())
            now = time.monotonic()
            verdict = self._look(now) or self._ask(now) or self._overdue(now)
            if verdict is not None:
                return verdict
            if now >= self._next_report:
                self._next_report = now + PROGRESS_SECONDS
                self._report(f"{self._why}, {now - self._began:.0f} of {self._timeout:.0f} s")
            self._watch.wait(EAGER_POLL_SECONDS if self._question else POLL_SECONDS)

    def _look(self, now: float) -> Failed | None:
        """What the Docker engine says, asked when the log ends and else once a second."""
        if now < self._next_look and not self._watch.ended():
            return None
        self._next_look = now + POLL_SECONDS
        return self._judge(self._watch.state(), now)

    def _judge(self, state: ContainerState | Gone | CouldNotAsk, now: float) -> Failed | None:
        match state:
            case CouldNotAsk(why):
                self._why = f"cannot ask Docker: {why}"
                if now - self._heard > DAEMON_PATIENCE_SECONDS:
                    return Failed(
                        f"Docker has not answered for {DAEMON_PATIENCE_SECONDS:.0f} s: {why}",
                        "see that the Docker engine runs, then repeat the command",
                    )
                return None
            case Gone():
                return Failed(
                    "the container was removed while it started", "repeat the command", ()
                )
        self._heard = now
        self._start = self._start or state.start
        if state.running and state.start == self._start:
            return None
        if state.start != self._start:
            cause = "the container ended and was started again"
        elif state.oom_killed:
            cause = "the container was killed: out of memory"
        elif state.error:
            cause = f"the container could not be started: {state.error}"
        else:
            cause = f"the container ended with exit code {state.exit_code}"
        return Failed(cause, "the log lines below say why", tuple(self._tail))

    def _ask(self, now: float) -> Healthy | Failed | None:
        """Put the next question, or read the answer to the last; the completion comes last."""
        question = self._question
        if question is None:
            if now >= self._next_question:
                self._question = _Question(self._probe.listening, 3 * self._probe.quick)
            return None
        if not question.done.is_set():
            if now < question.deadline:
                return None
            self._question = None
            if question.final:
                return Failed("the server took a request and never finished its answer", HUNG_MEND)
            return None
        self._question = None
        self._next_question = now + POLL_SECONDS
        match question.outcome:
            case Refused(cause, mend, evidence):
                return Failed(cause, mend, (*evidence, *self._tail))
            case NotYet(why):
                self._why = why
            case Ready() as answer:
                return self._confirm(answer)
            case _:
                self._why = "the server is up, waiting for its first answer"
                self._question = _Question(
                    self._probe.completion, self._probe.patience + 1, final=True
                )
        return None

    def _confirm(self, answer: Ready) -> Healthy | Failed | None:
        """An answer counts only if the start that gave it is the one we watch, and still runs."""
        self._watch.wait(EAGER_POLL_SECONDS)
        now = time.monotonic()
        state = self._watch.state()
        failed = self._judge(state, now)
        if failed is not None or not isinstance(state, ContainerState):
            return failed
        return Healthy(now - self._began, answer, state.start)

    def _overdue(self, now: float) -> Failed | None:
        if now - self._began < self._timeout:
            return None
        return Failed(
            f"the model did not answer within {self._timeout:.0f} s ({self._why})",
            "raise vllm-spark:health.timeoutSeconds if it was still making progress",
            tuple(self._tail),
        )

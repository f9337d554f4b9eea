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

from engine.diagnosis import LogDiagnosis
from engine.probe import HUNG_MEND, NotYet, Probe, Ready, Refused
from engine.redaction import redacted

POLL_SECONDS = 1.0
EAGER_POLL_SECONDS = 0.1
PROGRESS_SECONDS = 10.0
DAEMON_PATIENCE_SECONDS = 60.0
LAST_WORDS_SECONDS = 0.5
"""What a log that tells of a failure gets to say the rest of it."""

UNKNOWN_MEND = "the last lines of the log may tell; `make diagnose` reads a log that was saved"


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
        self._log = LogDiagnosis()
        self._tail: deque[str] = deque(maxlen=15)
        self._lost: float | None = None
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
            entered_phase = self._read()
            now = time.monotonic()
            verdict = self._look(now) or self._said(now) or self._ask(now) or self._overdue(now)
            if verdict is not None:
                return verdict
            if entered_phase or now >= self._next_report:
                self._next_report = now + PROGRESS_SECONDS
                doing = self._log.start.sentence() or self._why
                self._report(f"{doing}, {now - self._began:.0f} of {self._timeout:.0f} s")
            self._watch.wait(EAGER_POLL_SECONDS if self._question else POLL_SECONDS)

    def _read(self) -> bool:
        """Take in what the log has since the last time; whether a phase of the start began."""
        lines = self._watch.lines()
        self._tail.extend(lines)
        before = self._log.start.phase
        for line in lines:
            self._log.feed(line)
        return self._log.start.phase is not before

    def _said(self, now: float) -> Failed | None:
        """A start that has failed in its log is over, even if its process lives on and is mute."""
        if not self._log.final:
            return None
        self._lost = self._lost or now
        if now - self._lost < LAST_WORDS_SECONDS:
            return None
        return self._explained("the log says that the start has failed")

    def _explained(
        self, cause: str, exit_code: int | None = None, *, oom_killed: bool = False
    ) -> Failed:
        """The cause that the log tells; `cause` and its last lines if it tells none."""
        if not self._watch.ended():
            self._watch.wait(LAST_WORDS_SECONDS)
        self._read()
        found = self._log.diagnosis(exit_code=exit_code, oom_killed=oom_killed)
        if found.verdict == "failed":
            return Failed(found.cause, found.mend, tuple(found.evidence))
        tail = tuple(redacted(line) for line in self._tail)
        return Failed(f"{cause}, for a reason that is not known here", UNKNOWN_MEND, tail)

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
            return self._explained("the container ended and was started again")
        if state.error:
            cause = f"the container could not be started: {state.error}"
            return Failed(cause, "see the words of the Docker engine above")
        return self._explained(
            f"the container ended with exit code {state.exit_code}",
            state.exit_code,
            oom_killed=state.oom_killed,
        )

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
                return Failed(cause, mend, tuple(map(redacted, (*evidence, *self._tail))))
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
            tuple(map(redacted, self._tail)),
        )

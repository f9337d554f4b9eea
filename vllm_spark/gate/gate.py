"""Decides whether a start has succeeded, from the container's state and the server's answers.

A verdict belongs to one start of one container. The gate never sleeps blindly: it wakes when the
log grows or ends, so it sees a crash at once. It sends HTTP requests in a thread, so that a request
that is never answered cannot hide the death of the container.

Two time limits end the wait. The stall limit runs while nothing new happens: the first start of a
large model may take half an hour, but not in silence. The other one limits the whole start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from vllm_spark.diagnosis.start_log import Phase, StartFacts
from vllm_spark.diagnosis.verdict import diagnose
from vllm_spark.gate.followed_log import FollowedLog
from vllm_spark.gate.probe import HUNG_FIX, NotYet, Probe, Ready, Refused
from vllm_spark.gate.watch import ContainerState, CouldNotAsk, Gone, Watch

LOOK_SECONDS = 0.5
POLL_SECONDS = 1.0
EAGER_POLL_SECONDS = 0.1
"""Between two HTTP requests: at first, and after the log says that the server comes up."""
SETTLE_SECONDS = 0.1
"""How long a container must run after its first answer."""
PROGRESS_SECONDS = 10.0
DAEMON_PATIENCE_SECONDS = 60.0
LAST_WORDS_SECONDS = 0.5
"""How long to keep reading the log after a failure; less if it ends."""
ENDS_BY_ITSELF_SECONDS = 8.0
"""How long a start that has failed in its log may take to end. A vLLM whose EngineCore has failed
needs about 5 s (measured on an H100): its last lines and exit code come at the end, and until then
it ignores SIGTERM."""

UNKNOWN_FIX = (
    "read the last lines of the log; `make diagnose CONTAINER=<name>` looks at the container again"
)


@dataclass(frozen=True)
class Healthy:
    """The model answered, `seconds` after the gate began; `facts` are those from the log."""

    seconds: float
    answer: Ready
    start: str
    facts: StartFacts


@dataclass(frozen=True)
class Failed:
    """The start has failed: a line with the cause, a line with the fix, and the evidence."""

    cause: str
    fix: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Abandoned:
    """The wait was interrupted. The start goes on; `doing` describes its progress."""

    doing: str


class _Question:
    """One exchange with the server in a separate thread, abandoned after `limit` seconds."""

    def __init__(
        self, ask: Callable[[], object], limit: float, wake: Callable[[], None], *, final: bool
    ) -> None:
        self.final = final
        self.deadline = time.monotonic() + limit
        self.outcome: object = None
        self.done = threading.Event()
        threading.Thread(target=self._run, args=(ask, wake), daemon=True).start()

    def _run(self, ask: Callable[[], object], wake: Callable[[], None]) -> None:
        self.outcome = ask()
        self.done.set()
        wake()


class Gate:
    """One wait for one start. Calls `report` with lines of progress; `run` returns the verdict."""

    def __init__(
        self,
        watch: Watch,
        probe: Probe,
        report: Callable[[str], None],
        *,
        timeout_seconds: float,
        stall_seconds: float,
        version: str | None = None,
        interrupted: threading.Event | None = None,
    ) -> None:
        self._watch = watch
        self._probe = probe
        self._report = report
        self._timeout = timeout_seconds
        self._stall = stall_seconds
        self._interrupted = interrupted or threading.Event()
        self._began = time.monotonic()
        self._log = FollowedLog(self._began, version)
        self._lost: float | None = None
        self._start: str | None = None
        self._heard = self._began
        self._silence: str | None = None
        self._unreadable: str | None = None
        self._away = False
        self._oom_killed = False
        self._why = "the server has not answered /health"
        self._question: _Question | None = None
        self._answer: Ready | None = None
        self._next_question = self._began
        self._next_report = self._began + PROGRESS_SECONDS
        self._next_look = self._began

    def run(self) -> Healthy | Failed | Abandoned:
        """Wait until the model answers, the start has failed, or a time limit is reached."""
        while not self._interrupted.is_set():
            entered_phase = self._read()
            now = time.monotonic()
            if entered_phase and self._log.start.phase is Phase.READY:
                self._next_question = now
            verdict = self._look(now) or self._said(now) or self._ask(now) or self._overdue(now)
            if verdict is not None:
                return verdict
            unreadable, self._unreadable = self._unreadable, self._watch.unreadable()
            news = entered_phase or unreadable != self._unreadable
            if news or now >= self._next_report:
                self._next_report = now + PROGRESS_SECONDS
                self._report(f"{self._doing()}, {now - self._began:.0f} of {self._timeout:.0f} s")
            waking = [self._next_look, self._next_report]
            waking.append(self._question.deadline if self._question else self._next_question)
            self._watch.wait(max(0.0, min(waking) - time.monotonic()))
        return Abandoned(self._doing())

    def _doing(self) -> str:
        """The phase and its progress; after the log's last phase, the state of the port."""
        if self._silence is not None:
            return f"cannot ask Docker: {self._silence}"
        if self._unreadable is not None:
            return f"{self._why}; its log cannot be read: {self._unreadable}"
        return self._why if self._log.start.phase is Phase.READY else self._log.start.sentence()

    def _read(self) -> bool:
        """Read the new lines of the log. Returns True if a new phase of the start began."""
        before = self._log.start.phase
        self._log.take_in(self._watch.lines(), time.monotonic())
        return self._log.start.phase is not before

    def _hear(self, seconds: float) -> None:
        """Read the log until it ends, for at most this many seconds."""
        over = time.monotonic() + seconds
        while not self._watch.ended() and (left := over - time.monotonic()) > 0:
            self._watch.wait(left)
        self._read()

    def _said(self, now: float) -> Failed | None:
        """The failure, if the log reports one, even if the process still runs in silence."""
        if not self._log.final:
            return None
        self._lost = self._lost or now
        if now - self._lost < ENDS_BY_ITSELF_SECONDS:
            return None
        seen = self._unknown("the log says that the start has failed")
        return self._explained(seen, oom_killed=self._oom_killed)

    def _unknown(self, cause: str) -> Failed:
        return Failed(f"{cause}, for a reason that is not known here", UNKNOWN_FIX)

    def _explained(
        self, seen: Failed, exit_code: int | None = None, *, oom_killed: bool = False
    ) -> Failed:
        """The cause from the log; if it has none, the given `seen` with the log's last lines."""
        over = (self._lost or time.monotonic()) + LAST_WORDS_SECONDS
        self._hear(over - time.monotonic())
        answer = self._question.outcome if self._question else None
        answered = answer.evidence if isinstance(answer, Refused) else ()
        evidence = (*seen.evidence, *answered)
        found = self._log.diagnosis(exit_code=exit_code, oom_killed=oom_killed)
        if found.verdict == "failed":
            return Failed(found.cause, found.fix, (*evidence, *found.evidence))
        return Failed(seen.cause, seen.fix, (*evidence, *self._log.tail))

    def _look(self, now: float) -> Failed | None:
        """Check the container's state, when the log ends and otherwise twice a second."""
        if now < self._next_look and not self._watch.ended():
            return None
        self._next_look = now + LOOK_SECONDS
        return self._judge(self._watch.state(), now)

    def _judge(self, state: ContainerState | Gone | CouldNotAsk, now: float) -> Failed | None:
        match state:
            case CouldNotAsk(why):
                self._silence, self._away = why, True
                if now - self._heard > DAEMON_PATIENCE_SECONDS:
                    return Failed(
                        f"Docker has not answered for {DAEMON_PATIENCE_SECONDS:.0f} s: {why}",
                        "see that the Docker daemon runs, then repeat the command",
                    )
                return None
            case Gone():
                return Failed("the container was removed while it started", "repeat the command")
        self._heard, self._silence = now, None
        self._start = self._start or state.start
        # Docker records the kill of any process in the container, including EngineCore's.
        self._oom_killed = self._oom_killed or state.oom_killed
        if state.running and state.start == self._start:
            self._away = False  # Docker was slow, or its containers survived its restart
            return None
        if self._away:
            return Failed(
                "the Docker daemon was restarted while the server started, and ended it",
                "repeat the command",
            )
        if state.start != self._start:
            ended = self._watch.end_of(self._start)
            if ended is None:
                return self._explained(self._unknown("the container ended and was started again"))
            state = ended
        if state.error:
            found = diagnose([state.error])
            if found.rule:
                return Failed(found.cause, found.fix, (state.error,))
            cause = f"the container could not be started: {state.error}"
            return Failed(cause, "see the words of the Docker daemon above")
        return self._explained(
            self._unknown(f"the container ended with exit code {state.exit_code}"),
            state.exit_code,
            oom_killed=state.oom_killed or self._oom_killed,
        )

    def _ask(self, now: float) -> Healthy | Failed | None:
        """Send the next request, or read the answer to the last one; the completion comes last."""
        question = self._question
        if question is None:
            if now >= self._next_question:
                self._put(self._probe.listening, 3 * self._probe.quick)
            return None
        if not question.done.is_set():
            if now < question.deadline:
                return None
            self._question = None
            if question.final:
                hung = "the server took a request and never finished its answer"
                return self._explained(Failed(hung, HUNG_FIX))
            return None
        self._question = None
        coming_up = self._log.start.phase in (Phase.SERVER, Phase.READY)
        self._next_question = now + (EAGER_POLL_SECONDS if coming_up else POLL_SECONDS)
        match question.outcome:
            case Refused(cause, fix, evidence):
                return self._explained(Failed(cause, fix, evidence))
            case NotYet(why):
                self._why = why
            case Ready() as answer:
                # The port closes with the process; Docker may notice the end a little later.
                self._hear(SETTLE_SECONDS)
                self._answer = answer
                self._put(self._probe.listening, 3 * self._probe.quick)
            case _ if self._answer is not None:
                return self._confirm(self._answer)
            case _:
                self._why = "the server is up, waiting for its first answer"
                self._put(self._probe.answer, self._probe.patience + 1, final=True)
        return None

    def _put(self, ask: Callable[[], object], limit: float, *, final: bool = False) -> None:
        self._question = _Question(ask, limit, self._watch.wake, final=final)

    def _confirm(self, answer: Ready) -> Healthy | Failed | None:
        """An answer counts only if it came from the watched start, and that start still runs."""
        now = time.monotonic()
        state = self._watch.state()
        failed = self._judge(state, now)
        if failed is not None or not isinstance(state, ContainerState):
            return failed
        return Healthy(now - self._began, answer, state.start, self._log.start.facts)

    def _overdue(self, now: float) -> Failed | None:
        if now - self._began >= self._timeout:
            longer = "raise vllm-spark:health.timeoutSeconds if it was still making progress"
            return Failed(
                f"the model did not answer within {self._timeout:.0f} s ({self._doing()})",
                HUNG_FIX if self._question and self._question.final else longer,
                self._log.tail,
            )
        if self._unreadable is None and now - self._log.moved >= self._stall:
            return Failed(
                f"the start has stalled: nothing new for {self._stall:.0f} s ({self._doing()})",
                "see `nvidia-smi` and `free -h` on the host; raise vllm-spark:health.stallSeconds "
                "if it was working in silence",
                self._log.tail,
            )
        return None

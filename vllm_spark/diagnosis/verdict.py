"""Why a vLLM server did not start, or died: one cause and one fix, read from its log.

How the cause is found, in this order:

1. Only errors can be causes: lines of level ERROR, and bare lines (tracebacks, argparse, the
   kernel, docker). INFO and WARNING never are: no argument, advice or retry is a cause.
2. What the log survived is no cause. `Application startup complete` voids all before it; a phase
   that opens after an error voids it, unless that error ended a process.
3. What the death of a process says (error_blocks.py) wins over what was said elsewhere.
4. Among matches the more telling rule wins (`Rank`), then the earlier line: workers fail before
   the engine, the engine before the API server, and in a chain the root stands first.
   "See root cause above" is never a cause.
5. A failure without a rule is quoted and called unknown; a cause is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vllm_spark.diagnosis.error_log import SHOWN, ErrorLog, Match
from vllm_spark.diagnosis.failures import EXIT_CODES, KILLED_FOR_MEMORY, Rank
from vllm_spark.diagnosis.log_lines import Margin, log_lines
from vllm_spark.diagnosis.start_log import StartLog
from vllm_spark.redaction import redacted

_STOPPED_BY_SIGNAL = (130, 143)  # 128 + SIGINT, 128 + SIGTERM


@dataclass(frozen=True)
class Diagnosis:
    """What became of a server. `evidence` are lines of its log, secrets taken out.

    `healthy`: it served, whether or not it was stopped later. `failed`: it will not serve.
    `unknown`: the log does not decide. `rule` is the id in the catalogue, "" without one.
    """

    verdict: Literal["failed", "healthy", "unknown"]
    cause: str
    fix: str
    evidence: tuple[str, ...] = ()
    rule: str = ""


def diagnose(
    lines: Iterable[str],
    *,
    exit_code: int | None = None,
    oom_killed: bool = False,
    version: str | None = None,
) -> Diagnosis:
    """The verdict on a whole log, with or without the header and footer of a saved one."""
    log = LogDiagnosis(version)
    for line in lines:
        log.feed(line)
    return log.diagnosis(exit_code, oom_killed)


class LogDiagnosis:
    """Reads a log as it comes, in constant memory; knows at any time how things stand.

    `final` turns true as soon as the log says that the start is lost (or the serving engine
    dead), even if the process lives on: read what is at hand, then ask for the `diagnosis`.
    A container's log may hold several runs: the last one counts.
    """

    def __init__(self, version: str | None = None) -> None:
        self._log = ErrorLog(version or "")
        self._margin = Margin()

    @property
    def start(self) -> StartLog:
        """Phase, progress and facts of the start."""
        return self._log.start

    @property
    def final(self) -> bool:
        """Whether the log says that this server is lost."""
        return self._log.lost

    def feed(self, chunk: str) -> None:
        """Reads a line, or what one read of the log gave."""
        for line in log_lines(chunk, self._margin):
            self._log.read(line)

    def diagnosis(self, exit_code: int | None = None, oom_killed: bool = False) -> Diagnosis:
        """The verdict on what was read; exit code and OOMKilled are Docker's, where known."""
        log = self._log
        code = log.exit_code if exit_code is None else exit_code
        if log.lost or log.announced:
            return self._failed(code, oom_killed)
        if log.stopped or code in _STOPPED_BY_SIGNAL:
            return self._was_stopped(code)
        if oom_killed or code:
            return self._failed(code, oom_killed)
        if log.serving:
            return self._serving(code)
        if code == 0:
            return self._verdict(
                "failed",
                f"vLLM ended with exit code 0 before it served, while {self.start.phase.value}",
                "check the command: `vllm serve MODEL ...`, without --help or --version",
                log.tail,
            )
        best = self._best()
        if best and best.rule.rank <= Rank.GENERAL:
            return self._explained(best)
        return self._undecided()

    def _failed(self, code: int | None, oom_killed: bool) -> Diagnosis:
        log, best = self._log, self._best()
        if best and best.rule.rank <= Rank.GENERAL:
            return self._explained(best)
        if oom_killed:
            return self._verdict("failed", *self._during(KILLED_FOR_MEMORY), log.tail)
        if code is None and not log.is_vllm and best is None:
            return self._undecided()
        death = log.death or (None if log.serving else log.traceback)
        if death and death.exception:
            words = death.exception.text.strip()[:SHOWN]
            return self._verdict(
                "failed",
                self._after_serving(f"not in the catalogue of known failures: {words}"),
                "read the lines below; search vLLM's issues for them, or try a newer image",
                (death.exception.raw, death.frame),
            )
        if best and best.rule.rank is Rank.HINT:
            return self._explained(best)
        if code in EXIT_CODES:
            return self._verdict("failed", *self._during(EXIT_CODES[code]), log.tail)
        if best:
            return self._explained(best)
        refused = (log.refused.raw,) if log.refused else ()
        ended = "" if code is None else f" with exit code {code}"
        return self._verdict(
            "failed",
            f"unknown failure: it ended{ended} while {log.doing}, and the log gives no reason",
            "read the last lines below; start again with VLLM_LOGGING_LEVEL=DEBUG",
            refused or log.tail,
        )

    def _was_stopped(self, code: int | None) -> Diagnosis:
        log = self._log
        evidence = (log.stopped.raw,) if log.stopped else ()
        if log.stopped and log.stopped.level and not log.serving and not self.start.changes:
            return self._verdict(
                "unknown",
                "the server was stopped from outside, and the log begins too late to say whether"
                " it had served",
                "give the log from its beginning",
                evidence,
            )
        if not log.serving:
            return self._verdict(
                "failed",
                f"the start was stopped from outside (SIGTERM) while {self.start.phase.value}",
                "start again and let it finish; raise the time limit of whoever stopped it"
                " (health.timeoutSeconds)",
                evidence,
            )
        if code == 137:
            return self._verdict(
                "healthy",
                "the server served, was stopped, and killed when the stop timeout ran out",
                "set a longer stop timeout: open streams hold a vLLM that was asked to stop",
                evidence,
            )
        return self._verdict("healthy", "the server served until it was stopped", "", evidence)

    def _serving(self, code: int | None) -> Diagnosis:
        if code is None:
            return self._verdict("healthy", "the server started and serves", "", ())
        return self._verdict(
            "unknown",
            "the server served, then ended with exit code 0, and the log does not say why",
            "find out who stopped it; look for `oom` in `dmesg`: exit code 0 proves nothing",
            self._log.tail,
        )

    def _undecided(self) -> Diagnosis:
        log = self._log
        if not log.tail:
            return self._verdict("unknown", "the log is empty", "give the log of a vLLM start", ())
        if not log.is_vllm:
            return self._verdict(
                "unknown", "this is no log of a vLLM server", "give the output of `docker logs`",
                log.tail,
            )  # fmt: skip
        if log.traceback and log.traceback.exception:
            words = log.traceback.exception.text.strip()[:SHOWN]
            return self._verdict(
                "unknown",
                f"an error that is not in the catalogue, and no sign that it was the end: {words}",
                "give the log up to its end, with the exit code",
                (log.traceback.exception.raw, log.traceback.frame),
            )
        return self._verdict(
            "unknown",
            f"the start is not finished: last phase {self.start.sentence()}",
            "wait, or give the log up to its end",
            log.tail,
        )

    def _best(self) -> Match | None:
        """The match that explains most, by the order that this module's docstring gives."""
        log = self._log
        quiet = log.death is None
        usable = [
            match
            for match in log.matches
            if match.block.deadly
            or (
                match.rule.anywhere
                and not match.raised  # a thread's traceback: somebody survived it
                and (match.changes >= 0 or not match.line.level)
            )
            or match.rule.rank >= Rank.HINT
            or (quiet and match.changes == self.start.changes)
        ]
        return min(
            usable,
            key=lambda match: (
                max(match.rule.rank, Rank.GENERAL),
                not match.block.deadly,
                match.rule.rank,
            ),
            default=None,
        )

    def _explained(self, match: Match) -> Diagnosis:
        cause, fix = match.rule.explain(match.values) or ("", "")
        raw = match.line.raw
        if len(raw) > SHOWN:
            begin = 0 if match.position < SHOWN // 2 else match.position - 100
            raw = ("…" if begin else "") + raw[begin : begin + SHOWN] + "…"
        said = self._log.said.raw if self._log.said and self._log.serving else ""
        frame = match.block.frame if match.rule.frame else ""
        evidence = (raw, frame, match.detail, said)
        cause = self._after_serving(cause)
        return self._verdict("failed", cause, fix, evidence, match.rule.id)

    def _during(self, known: tuple[str, str]) -> tuple[str, str]:
        cause, fix = known
        return f"{cause}, while {self._log.doing}", fix

    def _after_serving(self, cause: str) -> str:
        return f"it served, then died: {cause}" if self._log.serving else cause

    def _verdict(
        self,
        verdict: Literal["failed", "healthy", "unknown"],
        cause: str,
        fix: str,
        evidence: Iterable[str],
        rule: str = "",
    ) -> Diagnosis:
        lines = dict.fromkeys(_shown(line[: SHOWN + 2]) for line in evidence if line.strip())
        return Diagnosis(verdict, " ".join(_shown(cause).split()), _shown(fix), tuple(lines), rule)


def _shown(text: str) -> str:
    """Without secrets, and without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in redacted(text))

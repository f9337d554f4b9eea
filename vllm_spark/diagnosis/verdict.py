"""Why a vLLM server did not start, or died: one cause and one fix, read from its log.

How the cause is found, in this order:

1. Only errors can be causes: lines of level ERROR, and bare lines (tracebacks, argparse, the
   kernel, Docker). INFO and WARNING never are: no argument, advice or retry is a cause.
2. What the log survived is no cause. `Application startup complete` voids all before it; a phase
   that opens after an error voids it, unless that error ended a process.
3. What the death of a process says (error_blocks.py) wins over what was said elsewhere. A death
   that only points elsewhere lets the errors of the same phase count.
4. Among matches the more telling rule wins (`Rank`), then the earlier line: workers fail before
   the engine, the engine before the API server, and in a chain the root stands first.
   "See root cause above" is never a cause, unless it quotes it.
5. A failure without a rule is quoted and called unknown; a cause is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Literal

from vllm_spark.diagnosis.answer import Diagnosis, issue_text, shown, shown_lines
from vllm_spark.diagnosis.error_log import ErrorLog
from vllm_spark.diagnosis.failures import EXIT_CODES, KILLED_FOR_MEMORY, Rank
from vllm_spark.diagnosis.log_lines import SHOWN, Margin, log_lines
from vllm_spark.diagnosis.matches import Match
from vllm_spark.diagnosis.pastes import LONGEST_PASTE, as_written, looks_wrapped, repaired
from vllm_spark.diagnosis.spaceless import match_without_spaces
from vllm_spark.diagnosis.start_log import StartLog

__all__ = ["Diagnosis", "LogDiagnosis", "diagnose"]

_STOPPED_BY_SIGNAL = (130, 143)  # 128 + SIGINT, 128 + SIGTERM
_MESSAGE_LINES = 3


def diagnose(
    lines: Iterable[str],
    *,
    exit_code: int | None = None,
    oom_killed: bool = False,
    version: str | None = None,
) -> Diagnosis:
    """The verdict on a whole log, with or without the header and footer of a saved one.

    A paste may be damaged: newest line first, wrapped, without its spaces. Where the lines as they
    stand explain nothing, they are read again as they may have been.
    """
    rest = iter(lines)
    head = list(islice(rest, LONGEST_PASTE))
    following = next(rest, None)
    if following is not None:  # a whole log, not a paste: read once, in constant memory
        return _read(chain(head, (following,), rest), version).diagnosis(exit_code, oom_killed)
    head = as_written(head)
    first = _read(head, version)
    found = first.diagnosis(exit_code, oom_killed)
    if found.verdict == "healthy" or (first.explained and not looks_wrapped(head)):
        return found
    readings = [_read(reading, version) for reading in repaired(head)]
    best = min((first, *readings), key=lambda reading: reading.rank)
    if best is not first and (best.explained or found.verdict == "failed"):
        return best.diagnosis(exit_code, oom_killed)
    return _without_spaces(head, version or first.version) or found


def _without_spaces(lines: list[str], version: str) -> Diagnosis | None:
    match = match_without_spaces(lines, version)
    if match is None:
        return None
    rule, cause, fix, line = match
    return Diagnosis("failed", shown(cause), shown(fix), (shown(line[:SHOWN]),), rule)


def _read(lines: Iterable[str], version: str | None) -> LogDiagnosis:
    log = LogDiagnosis(version)
    for line in lines:
        log.feed(line)
    return log


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
    def version(self) -> str:
        """The release, from the caller or the log; "" where neither knows it."""
        return self._log.version

    @property
    def final(self) -> bool:
        """Whether the log says that this server is lost."""
        return self._log.lost

    @property
    def explained(self) -> bool:
        """Whether the catalogue names a cause for what was read."""
        return self.rank <= Rank.GENERAL

    @property
    def rank(self) -> int:
        """How much the catalogue explains of what was read: a `Rank`, higher if nothing."""
        best = self._best()
        return best.rule.rank if best else max(Rank) + 1

    def feed(self, chunk: str) -> None:
        """Reads a line, or what one read of the log gave."""
        for line in log_lines(chunk, self._margin):
            self._log.read(line)

    def diagnosis(self, exit_code: int | None = None, oom_killed: bool = False) -> Diagnosis:
        """The verdict on what was read; exit code and OOMKilled are Docker's, where known."""
        log = self._log
        code = log.exit_code if exit_code is None else exit_code
        oom_killed = oom_killed or log.machine.oom_killed
        if log.lost or log.announced:
            return self._failed(code, oom_killed)
        if log.stopped or code in _STOPPED_BY_SIGNAL:
            if log.interrupted and self.explained:
                return self._failed(code, oom_killed)  # raised by what failed, not from outside
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
        return self._undecided(best)

    def _failed(self, code: int | None, oom_killed: bool) -> Diagnosis:
        log, best = self._log, self._best()
        if best and best.rule.rank <= Rank.GENERAL:
            return self._explained(best)
        if oom_killed:
            return self._verdict("failed", *self._during(KILLED_FOR_MEMORY), log.tail)
        if code is None and not log.is_vllm and best is None:
            return self._undecided(best)
        death = log.death or (None if log.serving else log.traceback)
        if death and death.exception:
            return self._verdict(
                "failed",
                self._after_serving(f"not in the catalogue of known failures: {death.words}"),
                "read the lines below; search vLLM's issues for them, or try a newer image",
                (*death.lines[:_MESSAGE_LINES], death.frame),
                asks=True,
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
            asks=True,
        )

    def _was_stopped(self, code: int | None) -> Diagnosis:
        log = self._log
        evidence = (log.stopped.raw,) if log.stopped else ()
        if log.stopped and log.stopped.level and not log.serving and not self.start.changes:
            return self._verdict(
                "unknown",
                "the server was stopped from outside, and the log begins too late to show whether"
                " it had served",
                "give the log from its beginning",
                evidence,
            )
        if not log.serving:
            return self._verdict(
                "failed",
                f"the start was stopped from outside (SIGTERM) while {self.start.phase.value}",
                "start again and let it finish; if a time limit stopped it, raise that limit"
                " (health.timeoutSeconds)",
                evidence,
            )
        if code == 137:
            return self._verdict(
                "healthy",
                "the server served, was stopped, and killed when the stop timeout ran out",
                "set a longer stop timeout: vLLM finishes open streams before it stops",
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

    def _undecided(self, best: Match | None) -> Diagnosis:
        log = self._log
        if not log.tail:
            return self._verdict("unknown", "the log is empty", "give the log of a vLLM start", ())
        if log.traceback and log.traceback.exception:
            return self._verdict(
                "unknown",
                "an error that is not in the catalogue, and no sign that it was the end:"
                f" {log.traceback.words}",
                "give the log up to its end, with the exit code",
                (*log.traceback.lines[:_MESSAGE_LINES], log.traceback.frame),
                asks=True,
            )
        if best and not log.is_vllm:
            return self._explained(best)
        if log.alone:
            return self._verdict(
                "unknown",
                f"an exception that is not in the catalogue: {log.alone.text.strip()}",
                "give the lines before it too: the traceback shows which part of vLLM raised it",
                (log.alone.raw,),
                asks=True,
            )
        if not log.is_vllm:
            return self._verdict(
                "unknown", "this is no log of a vLLM server", "give the output of `docker logs`",
                log.tail,
            )  # fmt: skip
        if log.machine.waits > 1:
            return self._verdict(
                "unknown",
                "a process waits for another one that does not answer (the last"
                f" {log.machine.waits} messages say so): {log.machine.wait}",
                "read the log of every other node and worker at this time: the one that died or"
                " hangs has no such line. `py-spy dump --pid PID` shows where a process hangs; on"
                " several nodes set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME to each node's own"
                " interface",
                log.tail,
            )
        return self._verdict(
            "unknown",
            f"the start is not finished: last phase {self.start.sentence()}",
            "wait, or give the log up to its end",
            log.tail,
        )

    def _best(self) -> Match | None:
        return self._log.matches.best(self.start.changes, quiet=self._log.death is None)

    def _explained(self, match: Match) -> Diagnosis:
        cause, fix = match.rule.explain(match.values) or ("", "")
        raw = match.line.raw
        if len(raw) > SHOWN:
            begin = 0 if match.position < SHOWN // 2 else match.position - 100
            raw = ("…" if begin else "") + raw[begin : begin + SHOWN] + "…"
        said = self._log.said.raw if self._log.said and self._log.serving else ""
        frame = match.block.frame if match.rule.frame else ""
        more = match.block.lines[1:_MESSAGE_LINES] if match.block.exception else []
        evidence = (raw, *more, frame, match.detail, said)
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
        *,
        asks: bool = False,
    ) -> Diagnosis:
        lines = tuple(dict.fromkeys(shown(line[: SHOWN + 2]) for line in evidence if line.strip()))
        log = self._log
        issue = ""
        if asks:
            issue = shown_lines(
                issue_text(log.version, log.facts.settings, log.facts.chosen, log.doing, lines)
            )
        cause = " ".join(shown(cause[: 2 * SHOWN]).split())
        return Diagnosis(verdict, cause, shown(fix), lines, rule, issue)

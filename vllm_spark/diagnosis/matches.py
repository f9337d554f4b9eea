"""The rules of the catalogue that match the errors of a log, and which of them explains most."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vllm_spark.diagnosis.error_blocks import ErrorBlock
from vllm_spark.diagnosis.failures import ORDER, Rank, Rule, candidates
from vllm_spark.diagnosis.log_lines import SHOWN, LogLine

_MOST_MATCHES = 60
_MATCHES_OF_A_RULE = 3  # the same error as worker, engine and API server report it
_LINES_AHEAD = 8

# vLLM hands on what another process raised: the quoted words are the exception.
QUOTES = re.compile(
    r"(?:Worker failed with error|Call to \w+ method failed:|Caught exception:) ?'?(?P<quoted>.+?)"
    r"(?:'?, please check the stack trace.*|')?$"
)
_RETRIED = re.compile(r"thrown while requesting (?:HEAD|GET) |^Retrying in \d")


@dataclass
class Match:
    """A rule that matched a line, with the values for its templates.

    `position`: where in the line's raw text. `changes`: how many phases had opened by then, -1
    when the server already served. `detail`: the later line that completed it.
    """

    rule: Rule
    values: dict[str, str]
    line: LogLine
    position: int
    block: ErrorBlock
    changes: int
    detail: str = ""
    lines_ahead: int = _LINES_AHEAD

    @property
    def raised(self) -> bool:
        """Whether the line is the exception of a traceback."""
        return self.block.exception is self.line


class Matches:
    """Collects the matches of one start of a server, in the order of the lines."""

    def __init__(self) -> None:
        self.kept: list[Match] = []
        self._changes = 0
        self._context: Callable[[], dict[str, str]] = dict

    def read(
        self, line: LogLine, block: ErrorBlock, changes: int, context: Callable[[], dict[str, str]]
    ) -> None:
        """Takes in a line of an error; `context` gives what the log says of the server."""
        self._changes, self._context = changes, context
        self._complete(line, block)
        if _RETRIED.search(line.text) or len(self.kept) >= _MOST_MATCHES:
            return
        quoted = QUOTES.search(line.text)
        if quoted and self._match_text(quoted["quoted"], quoted["quoted"], line, block):
            return
        message = "\n".join(block.message) if block.exception else line.text
        self._match_text(line.text, message, line, block)

    def _match_text(self, text: str, message: str, line: LogLine, block: ErrorBlock) -> bool:
        """Keeps the most telling rule that matches; whether one does."""
        frames = "\n".join(block.frames)
        of_a_request = self._changes < 0 and bool(line.level) and not block.deadly
        for rule in candidates(message, hints_only=of_a_request):
            if line.level not in rule.levels:
                continue
            found = rule.search(text, message)
            if found is None or not rule.fits(message, frames):
                continue
            values = {
                **self._context(),
                "message": message,
                "frames": frames,
                "text": text,
                **_filled(found),
            }
            if rule.explain(values) is None:
                continue
            self._keep(Match(rule, values, line, _position(line, found), block, self._changes))
            return True
        return False

    def _keep(self, match: Match) -> None:
        """Adds a match; of one exception's lines only the most telling one stays."""
        of_message = [
            known
            for known in self.kept
            if known.block is match.block
            and match.block.exception is not None
            and known.line.raw in match.block.lines
        ]
        if of_message:
            if ORDER[match.rule.id] < ORDER[of_message[0].rule.id]:
                match.line = of_message[0].line if match.line.level else match.line
                self.kept[self.kept.index(of_message[0])] = match
            return
        if sum(known.rule is match.rule for known in self.kept) < _MATCHES_OF_A_RULE:
            self.kept.append(match)

    def _complete(self, line: LogLine, block: ErrorBlock) -> None:
        """A later line of a message may complete a match, or show that its rule does not fit."""
        for match in [m for m in self.kept if m.block is block and m.lines_ahead]:
            match.lines_ahead -= 1
            pattern = match.rule.compiled_detail
            if pattern and (found := pattern.search(line.text)):
                match.values.update(_filled(found))
                match.detail, match.lines_ahead = line.raw[:SHOWN], 0
            if match.raised and match.rule.unless:
                message = "\n".join(block.message)
                if not match.rule.fits(message, match.values["frames"]):
                    self.kept.remove(match)

    def best(self, changes: int, *, quiet: bool) -> Match | None:
        """The match that explains most, by the order that verdict.py's docstring gives.

        `changes`: how many phases have opened by now. `quiet`: no process has died of an error.
        """
        usable = [
            match
            for match in self.kept
            if match.block.deadly
            or (
                match.rule.anywhere
                and not match.raised  # a thread's traceback: the process survived it
                and (match.changes >= 0 or not match.line.level)
            )
            or match.rule.rank >= Rank.HINT
            or (
                quiet
                and match.changes == changes
                and not (match.rule.deaths_only and match.line.level)
            )
        ]
        best = min(
            usable,
            key=lambda match: (
                max(match.rule.rank, Rank.GENERAL),
                not match.block.deadly,
                match.rule.rank,
            ),
            default=None,
        )
        if best is None:
            return None
        return next((match for match in self.kept if best.rule.id in match.rule.root_of), best)


def _position(line: LogLine, found: re.Match[str]) -> int:
    at = line.raw.find(found[0].split("\n")[0])
    return max(at, 0)


def _filled(found: re.Match[str]) -> dict[str, str]:
    return {name: value for name, value in found.groupdict().items() if value}

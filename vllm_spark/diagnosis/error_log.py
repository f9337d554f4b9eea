"""What a log says of failure: the deaths, and the rules of the catalogue that match.

Read once, line by line, in constant memory. What it all means is decided in diagnosis.py.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from vllm_spark.diagnosis.error_blocks import ErrorBlock, ErrorBlocks
from vllm_spark.diagnosis.failures import CATALOGUE, Rule
from vllm_spark.diagnosis.log_lines import LogLine
from vllm_spark.diagnosis.start_log import Phase, StartLog

SHOWN = 500
"""Characters of a line that are kept to be shown."""

_MOST_MATCHES = 60
_MATCHES_OF_A_RULE = 3  # the same error as worker, engine and API server tell it
_LINES_AHEAD = 8

_SAYS_SO_ONLY = re.compile(
    r"(?:[Ss]ee|check) (?:the )?(?:root cause|stack trace)|EngineDeadError"
    r"|engine core exited unexpectedly|proc \S+ died unexpectedly|RayWorkerProc rank=\S+ died"
    r"|(?:Engine core|WorkerProc) initialization failed|RayTaskError|RuntimeError: cancelled"
    r"|RuntimeError: Executor failed|MQLLMEngine is already dead"
    r"|Engine (?:process \(pid \d+\)|loop has) died"
    r"|object has no attribute 'workers'"
    r"|RuntimeError: NCCL error: unhandled \w+ error"  # "run with NCCL_DEBUG=INFO for details"
)
_REFUSED = re.compile(r"^\S{0,80}(?:vllm|server)[\w .-]{0,40}: error: ")
_VLLM_FRAME = re.compile(r"\s*File \"[^\"]*\bvllm\b")
_STOP_LOGGED = re.compile(r"shutdown triggered|received signal=SIG|Received shutdown signal")
_SERVER_ENDS = re.compile(r"Shutting down")  # uvicorn, whoever asked for it
_STOP_RAISED = re.compile(r"^(?:KeyboardInterrupt|SystemExit|[\w.]*CancelledError)\b")
_EXIT = re.compile(
    r"^# exit (-?\d{1,5}) after|^Exited \((\d{1,5})\)"
    r"|\b(?:exited|terminated) with (?:exit )?code:? (\d{1,5})$"
)
_RUN_BEGINS = re.compile(r"API server version|█ +version \d")
_RETRIED = re.compile(r"thrown while requesting (?:HEAD|GET) |^Retrying in \d")
# uvicorn listens when all else is done: whoever was answered was answered by a server
_ANSWERED = re.compile(r'^\S+ - "[A-Z]+ /\S* HTTP/[\d.]+" \d{3}')
_SERVED = re.compile(r'"POST /v1/\S* HTTP/[\d.]+" 200')
_ARGUMENTS = {
    "util": re.compile(r"\bgpu[_-]memory[_-]utilization['\"]?[:=\s]\s*([\d.]+)"),
    "port": re.compile(r"(?:--|['\" (])port['\"]?[:=\s]\s*(\d+)"),
    "kv_cache_memory_bytes": re.compile(r"\bkv[_-]cache[_-]memory[_-]bytes['\"]?[:=\s]\s*(\w+)"),
    "model": re.compile(r"(?:[ {(]'?model'?(?:=|: )'|\bvllm serve (?!-)|--model[ =])([^'\s]+)"),
}


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


class ErrorLog:
    """Collects, from the lines of one log, all that may explain a failure.

    `announced`: the first error that ended a process, `death`: the first such whose exception has
    been read. `refused`: argparse's last word. `said`: the first line that only says that
    something failed elsewhere. `stopped`: the line that tells of a stop from outside.
    `exit_code`: from the footer of a saved log, signals as 128 + n. `tail`: the last lines.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._begin()

    def _begin(self) -> None:
        self.start = StartLog()
        self.exit_code: int | None = None
        self.tail: deque[str] = deque(maxlen=_LINES_AHEAD)
        self.is_vllm = False
        self._arguments = dict.fromkeys(_ARGUMENTS, "")
        self._answered = False
        self._program_end: ErrorBlock | None = None
        self._forget_errors()

    def _forget_errors(self) -> None:
        self.matches: list[Match] = []
        self.announced: ErrorBlock | None = None
        self.death: ErrorBlock | None = None
        self._traceback: tuple[ErrorBlock, int] | None = None
        self.refused: LogLine | None = None
        self.said: LogLine | None = None
        self.stopped: LogLine | None = None
        self._blocks = ErrorBlocks()

    @property
    def serving(self) -> bool:
        """Whether the server has come up, be it before the first line of a log that was cut."""
        return self.start.phase is Phase.READY or self._answered

    @property
    def traceback(self) -> ErrorBlock | None:
        """The last traceback that no phase has opened after."""
        if self._traceback is None or self._traceback[1] != self.start.changes:
            return None
        return self._traceback[0]

    @property
    def doing(self) -> str:
        """The phase, as it follows "while"."""
        return "serving" if self.serving else self.start.phase.value

    @property
    def _ended(self) -> bool:
        """Whether a run that starts now is another one."""
        return self.lost or bool(self.stopped) or self.serving or self.exit_code is not None

    @property
    def lost(self) -> bool:
        """Whether the log says that this server is lost."""
        return bool(self.death or self.refused or self.said)

    def read(self, line: LogLine) -> None:
        """Takes in one line."""
        was_starting = self.start.phase is not Phase.READY
        self.start.read(line)
        if was_starting and self.start.phase is Phase.READY and not self._answered:
            self._forget_errors()
        text = line.text
        if not text or text.isspace():
            return
        if not line.level and (exited := _EXIT.search(text)):
            code = int(next(group for group in exited.groups() if group))
            self.exit_code = 128 - code if code < 0 else code
        if text.startswith("# exit "):
            return
        if text.startswith("# argv:"):
            self._read_arguments(text)
            return
        self.tail.append(line.raw[:SHOWN])
        self.is_vllm = self.is_vllm or bool(line.origin or _VLLM_FRAME.match(text))
        if line.level in ("INFO", "DEBUG"):
            self._read_message(line)
        else:
            self._read_error(line)

    def _read_message(self, line: LogLine) -> None:
        text = line.text
        if not line.origin and _ANSWERED.search(text):
            self._answered = True
        if self.stopped is None and (
            _STOP_LOGGED.search(text) or (self.serving and _SERVER_ENDS.search(text))
        ):
            self.stopped = line
        elif self.announced and self.announced.task_only and _SERVED.search(text):
            self._forgive()
        elif _RUN_BEGINS.search(text) and self._ended:
            self._begin()  # Docker restarted the container: the log of the last run counts
            self.start.read(line)
        elif "non-default args" in text or "args: Namespace" in text or "LLM engine (v" in text:
            self._read_arguments(text)

    def _forgive(self) -> None:
        """It answers again: only a task had failed."""
        self.announced = self.death = None
        for match in self.matches:
            match.block.deadly = match.block.deadly and not match.block.task_only

    def _read_arguments(self, text: str) -> None:
        for name, pattern in _ARGUMENTS.items():
            if not self._arguments[name] and (found := pattern.search(text)):
                self._arguments[name] = found[1].rstrip(",")

    def _read_error(self, line: LogLine) -> None:
        text = line.text
        refused = not line.level and bool(_REFUSED.match(text))
        if refused and self._ended:
            self._begin()  # argparse speaks before the banner: this is a run of its own
            self.tail.append(line.raw[:SHOWN])
        says_so_only = bool(_SAYS_SO_ONLY.search(text))
        if line.level == "WARNING":
            if says_so_only and not self.stopped:
                self.said = self.said or line
            self._match(line, ErrorBlock())
            return
        block = self._blocks.place(line, self.serving)
        if block is None:
            return
        if block.from_the_top and block.exception is line:
            over = self.refused or self._program_end
            if over and over is not block and not line.process:
                self._begin()  # it dies but once: this run had not come to its banner
                self.tail.append(line.raw[:SHOWN])
            self._program_end = block
        if block.deadly and _STOP_RAISED.match(text):
            self.stopped = self.stopped or line
            self.announced = None
            block.deadly = False
        elif says_so_only:
            if not self.stopped:
                self.said = self.said or line
        elif block.exception is line:
            self._traceback = block, self.start.changes
            if block.deadly and not self.stopped:
                self.death = self.death or block
        if block.deadly and not self.stopped:
            self.announced = self.announced or block
        if refused:
            self.refused = self.refused or line
        self._match(line, block)

    def _match(self, line: LogLine, block: ErrorBlock) -> None:
        self._complete(line, block)
        if _RETRIED.search(line.text):
            return
        if len(self.matches) >= _MOST_MATCHES:
            return
        for rule in CATALOGUE:
            found = rule.search(line.text) if line.level in rule.levels else None
            if found is None or rule.frame not in block.frame:
                continue
            values = {**self._context(), **_filled(found)}
            if rule.explain(values) is None:
                continue
            if sum(match.rule is rule for match in self.matches) < _MATCHES_OF_A_RULE:
                position = len(line.raw) - len(line.text) + found.start()
                changes = -1 if self.serving else self.start.changes
                self.matches.append(Match(rule, values, line, position, block, changes))
            return

    def _complete(self, line: LogLine, block: ErrorBlock) -> None:
        for match in self.matches:
            pattern = match.rule.compiled_detail
            if pattern and match.lines_ahead and match.block is block:
                match.lines_ahead -= 1
                if found := pattern.search(line.text):
                    match.values.update(_filled(found))
                    match.detail, match.lines_ahead = line.raw[:SHOWN], 0

    def _context(self) -> dict[str, str]:
        facts = self.start.facts
        return {
            **self._arguments,
            "model": self._arguments["model"] or "the model",
            "version": self._version or facts.version or "",
            "phase": self.doing,
            "weights": str(facts.weights_gib or ""),
            "available_kv": str(facts.available_kv_gib or ""),
        }


def _filled(found: re.Match[str]) -> dict[str, str]:
    return {name: value for name, value in found.groupdict().items() if value}

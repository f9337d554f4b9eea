"""What a log says of failure: the deaths, and the rules of the catalogue that match.

Reads once, line by line, in constant memory. What it all means is decided in verdict.py.
"""

from __future__ import annotations

import re
from collections import deque

from vllm_spark.diagnosis.error_blocks import ErrorBlock, ErrorBlocks
from vllm_spark.diagnosis.log_lines import KERNEL, SHOWN, LogLine
from vllm_spark.diagnosis.machine_facts import MachineFacts
from vllm_spark.diagnosis.matches import QUOTES, Matches
from vllm_spark.diagnosis.server_facts import ServerFacts
from vllm_spark.diagnosis.start_log import Phase, StartLog

_TAIL = 8  # lines

_SAYS_SO_ONLY = re.compile(
    r"(?:[Ss]ee|check) (?:the )?(?:root cause|stack trace)|EngineDeadError"
    r"|engine core exited unexpectedly|proc \S+ died unexpectedly|RayWorkerProc rank=\S+ died"
    r"|(?:Engine core|WorkerProc) initialization failed|RayTaskError|RuntimeError: cancelled"
    r"|RuntimeError: Executor failed|MQLLMEngine is already dead"
    r"|Engine (?:process \(pid \d+\)|loop has) died"
    r"|object has no attribute 'workers'"
    r"|Model architectures \[[^\]]*\] failed to be inspected"
    r"|RuntimeError: NCCL error: unhandled \w+ error"  # "run with NCCL_DEBUG=INFO for details"
)
_REFUSED = re.compile(r"^\S{0,80}(?:vllm|server)[\w .-]{0,40}: error: ")
_VLLM_FRAME = re.compile(r"\s*File \"[^\"]*\bvllm\b")
_STOP_LOGGED = re.compile(r"shutdown triggered|received signal=SIG|Received shutdown signal")
_SERVER_ENDS = re.compile(r"Shutting down")  # uvicorn, whatever asked for it
_STOP_RAISED = re.compile(r"^(?:KeyboardInterrupt|SystemExit|[\w.]*CancelledError)\b")
_RUN_BEGINS = re.compile(r"API server version|█ +version \d")
# uvicorn listens only when all else is ready, so an answer proves that the server was up
_ANSWERED = re.compile(r'^\S+ - "[A-Z]+ /\S* HTTP/[\d.]+" \d{3}')
_SERVED = re.compile(r'"POST /v1/\S* HTTP/[\d.]+" 200')
_LOOKS_RAISED = re.compile(r"^\s*(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit)\b:? ?")


class ErrorLog:
    """Collects, from the lines of one log, all that may explain a failure.

    `announced`: the first error that ended a process, `death`: the first such whose exception has
    been read. `refused`: argparse's last word. `said`: the first line that only says that
    something failed elsewhere. `stopped`: the line that reports a stop from outside, `interrupted`
    when a process raised it. `alone`: a line that looks like an exception, without a traceback.
    `tail`: the last lines.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._begin()

    def _begin(self) -> None:
        self.start = StartLog()
        self.facts = ServerFacts()
        self.machine = MachineFacts()
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.is_vllm = False
        self._answered = False
        self._program_end: ErrorBlock | None = None
        self._forget_errors()

    def _forget_errors(self) -> None:
        self.matches = Matches()
        self.announced: ErrorBlock | None = None
        self.death: ErrorBlock | None = None
        self._traceback: tuple[ErrorBlock, int] | None = None
        self._traceback_before: tuple[ErrorBlock, int] | None = None
        self.refused: LogLine | None = None
        self.said: LogLine | None = None
        self.stopped: LogLine | None = None
        self.interrupted = False
        self.alone: LogLine | None = None
        self._blocks = ErrorBlocks()

    @property
    def version(self) -> str:
        """The release, from the caller or the log; "" where neither knows it."""
        return self._version or self.start.facts.version or ""

    @property
    def exit_code(self) -> int | None:
        """From the footer of a saved log, or systemd; signals as 128 + n."""
        return self.machine.exit_code

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
        return bool(self.death or self.refused or self.said or self.machine.rebooted)

    def read(self, line: LogLine) -> None:
        """Takes in one line."""
        was_starting = self.start.phase is not Phase.READY
        self.start.read(line)
        if was_starting and self.start.phase is Phase.READY and not self._answered:
            self._forget_errors()
        text = line.text
        if not text or text.isspace():
            return
        if not line.level:
            self.machine.read(text, line.process == KERNEL)
        if text.startswith("# exit "):
            return
        if text.startswith("# argv:"):
            self.facts.read_arguments(text)
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
        elif not self.facts.read_arguments(text):
            self.facts.read(text)
            self.machine.read_message(text)

    def _forgive(self) -> None:
        """It answers again: only a task had failed."""
        self.announced = self.death = None
        for match in self.matches.kept:
            match.block.deadly = match.block.deadly and not match.block.task_only

    def _read_error(self, line: LogLine) -> None:
        text = line.text
        refused = not line.level and bool(_REFUSED.match(text))
        if refused and self._ended:
            self._begin()  # argparse speaks before the banner: this is a run of its own
            self.tail.append(line.raw[:SHOWN])
        quoted = QUOTES.search(text)
        says_so_only = not quoted and bool(_SAYS_SO_ONLY.search(text))
        if line.level == "WARNING":
            self.facts.read(text)
            self.machine.read_message(text)
            if says_so_only and not self.stopped:
                self.said = self.said or line
            self._match(line, ErrorBlock())
            return
        block = self._blocks.place(line, self.serving)
        if block is None:
            return
        if not line.level and not block.exception and _LOOKS_RAISED.match(text):
            self.alone = line
        if block.from_the_top and block.exception is line:
            over = self.refused or self._program_end
            if over and over is not block and not line.process:
                self._begin()  # it dies but once: this run had not come to its banner
                self.tail.append(line.raw[:SHOWN])
            self._program_end = block
        if block.deadly and _STOP_RAISED.match(text):
            self.interrupted = self.interrupted or self.stopped is None
            self.stopped = self.stopped or line
            self.announced = None
            block.deadly = False
        elif says_so_only:
            if not self.stopped:
                self.said = self.said or line
            if block.exception and block is self.death:  # a later line of what seemed the cause
                self.death = None
                self._traceback = self._traceback_before
        elif block.exception is line:
            self._traceback_before = self._traceback
            self._traceback = block, self.start.changes
            if block.deadly and not self.stopped:
                self.death = self.death or block
        if block.deadly and not self.stopped:
            self.announced = self.announced or block
        if refused:
            self.refused = self.refused or line
        if block.exception is None and (not line.level or "LLM engine (v" in text):
            self.facts.read_arguments(text)  # the command, pasted above its output
        self._match(line, block)

    def _match(self, line: LogLine, block: ErrorBlock) -> None:
        changes = -1 if self.serving else self.start.changes
        self.matches.read(line, block, changes, self._context)

    def _context(self) -> dict[str, str]:
        facts = self.start.facts
        settings = self.facts.settings
        return {
            **settings,
            **self.facts.chosen,
            "util": settings.get("gpu_memory_utilization", ""),
            "port": settings.get("port", ""),
            "kv_cache_memory_bytes": settings.get("kv_cache_memory_bytes", ""),
            "model": settings.get("model") or "the model",
            "version": self.version,
            "phase": self.doing,
            "weights": str(facts.weights_gib or ""),
            "available_kv": str(facts.available_kv_gib or ""),
        }

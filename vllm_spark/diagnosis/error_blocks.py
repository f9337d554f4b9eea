"""Which lines of a log belong to one error, and whether that error ended a process.

vLLM's processes write into one stream: a worker's traceback, the engine's, the API server's, each
perhaps a chain of exceptions, line by line between one another. How a traceback begins shows
whether it ended its process or was only logged: nothing catches one that starts at `<module>` or in
a process's bootstrap, and engine and workers announce their own ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from vllm_spark.diagnosis.log_lines import LogLine

_OPEN_BLOCKS = 64
"""Processes followed at once; a log names few, garbage may name many."""

_MOST_FRAMES = 60
_LONGEST_MESSAGE = 14  # lines
_MOST_CHARACTERS = 4000

_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = re.compile(r"^(?:During handling of|The above exception was the direct cause)")
# The program itself, as a shell or an image starts it: not a child of it.
_FROM_THE_TOP = re.compile(r"\bvllm\", line \d+, in <module>$|in _run_module_as_main$")
_UNCAUGHT = re.compile(r"\bin (?:<module>|_bootstrap|_run_module_as_main)\s*$")
# V0's engine logs its end, and goes.
_ENDS_V0 = re.compile(r"engine/multiprocessing/engine\.py\", line \d+, in (?:start|run_mp_engine)$")
_ENDS_A_PROCESS = re.compile(
    r"EngineCore (?:failed to start|encountered a fatal error|hit an exception)"
    r"|WorkerProc failed|Engine process failed to start|Engine background task failed"
    r"|^Process (?:\w*EngineCore|SpawnProcess|ForkProcess|VllmWorker|Worker|A[Pp][Ii]Server)[\w-]*:"
)
# Ends a start. A serving engine may go on: a LoRA adapter could not be loaded.
_FAILS_A_TASK = re.compile(
    r"WorkerProc hit an exception|Error executing method|Exception in worker"
)
_EXCEPTION = re.compile(
    r"^[A-Za-z_][\w.<>]*(?:\(\w+\))?:(?:\s|$)"
    r"|^(?:[A-Za-z_]\w*\.)*[A-Z]\w*$"
)
# Python's own words around a multi-line message end it.
_ENDS_A_MESSAGE = re.compile(r"^(?:\[rank\d+\]|Process \w|During handling|The above exception)")


_Key = tuple[str, str, str]  # process, level, origin


@dataclass
class ErrorBlock:
    """One error as one process reports it: a traceback with its chain, or a single line.

    `deadly`: it ended a process. `task_only`: it may have ended but one task of a serving engine.
    `from_the_top`: it ended the program, whose own first frame it shows.
    `frames` are the texts of the last traceback's frames, outermost first, and `frame` the
    innermost one's whole line. `exception` is the first line of the last exception of the chain,
    `message` the texts of its lines, and `lines` those lines whole.
    """

    deadly: bool = False
    task_only: bool = False
    from_the_top: bool = False
    frame: str = ""
    frames: list[str] = field(default_factory=list)
    exception: LogLine | None = None
    message: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    in_frames: bool = False
    indented: bool = False
    chained: bool = False
    exceptions: int = 0
    """How many exceptions of the chain have been read."""

    @property
    def words(self) -> str:
        """The exception's whole message in one line."""
        return " ".join(" ".join(self.message).split())


class ErrorBlocks:
    """Puts each error line into its block. Holds one open block for each process."""

    def __init__(self) -> None:
        self._open: dict[_Key, ErrorBlock] = {}

    def place(self, line: LogLine, serving: bool) -> ErrorBlock | None:
        """The block of an error line; None for the inside of a traceback, which says nothing."""
        key = (line.process, line.level, line.origin)
        block = self._open.get(key) or self._opened(key)
        text = line.text
        if (ends := _ENDS_A_PROCESS.search(text)) or _FAILS_A_TASK.search(text):
            block = self._opened(key)
            block.deadly, block.task_only = True, serving and not ends
        if _TRACEBACK in text:
            if block.exception and not block.chained:
                block = self._opened(key)
            block.in_frames, block.indented, block.chained = True, False, False
            block.frames = []
            return None
        if block.in_frames:
            return self._in_frames(block, line)
        if _CHAINED.match(text):
            block.chained = True
        elif block.exception and self._continues(block, text):
            block.message.append(text)
            block.lines.append(line.raw)
        elif not block.exception:
            block.message, block.lines = [text], [line.raw]
        return block

    @staticmethod
    def _continues(block: ErrorBlock, text: str) -> bool:
        return (
            not block.chained
            and not _ENDS_A_MESSAGE.match(text)
            and len(block.message) < _LONGEST_MESSAGE
            and sum(map(len, block.message)) < _MOST_CHARACTERS
        )

    def _in_frames(self, block: ErrorBlock, line: LogLine) -> ErrorBlock | None:
        text = line.text
        if text[:1].isspace() or text.startswith('File "'):
            if "File " in text:
                # the first frame decides; a logged error may quote another process's traceback
                first = not block.indented
                if first and (_ENDS_V0 if line.level else _UNCAUGHT).search(text):
                    block.deadly = True
                    block.from_the_top = bool(_FROM_THE_TOP.search(text.rstrip()))
                block.indented = block.indented or text[:1].isspace()
                block.frame = line.raw
            if len(block.frames) >= _MOST_FRAMES:
                del block.frames[0]
            block.frames.append(text)
            return None
        if not _EXCEPTION.match(text):
            return None  # a paste that lost its indentation: this is source code
        block.in_frames = False
        block.exception = line
        block.message, block.lines = [text], [line.raw]
        block.exceptions += 1
        return block

    def _opened(self, key: _Key) -> ErrorBlock:
        if len(self._open) >= _OPEN_BLOCKS:
            self._open.clear()
        block = self._open[key] = ErrorBlock()
        return block

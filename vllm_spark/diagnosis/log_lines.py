"""One line of a vLLM log, taken apart: which process wrote it, its level, its message.

Every release of vLLM writes its lines a little differently, and every way of saving a log adds
something in front. The readers of logs (progress, diagnosis) want the message and nothing else, so
the forms are known here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_TEXT = 6000
"""Characters of one line that any pattern of the catalogue sees: half from its begin, half from its
end. A log is no trusted input, and the work of some patterns grows with the square of the line. The
longest useful lines, which list the 300 architectures of a release, keep both their ends."""

SHOWN = 500
"""Characters of a line that are kept to be shown."""

KERNEL = "kernel"
"""The `process` of a line of the kernel, from a journal or from dmesg."""

# A paste may have lost the escape character, or show it as "^[" or "\x1b".
_COLOUR = re.compile(
    r"(?:\x1b|\^\[|\\x1b|\\u001b|\\033|\\e|\N{SYMBOL FOR ESCAPE}|\N{REPLACEMENT CHARACTER})?"
    r"\[(?:\d{1,3}(?:;\d{1,3})*)?[mK]"
    r"|\x1b\[[0-9;]*[A-Za-z]"
)
# compose's "name-1  | " (swarm's "name.1.id@node    | "), docker --timestamps (Kubernetes: with
# "stderr F "), CI clocks in brackets, the journal's "Aug 19 18:34:27 host vllm[8727]: ", kubectl's
# "[pod/name/container] ", launchers' "[0] [0] ", and what a mail or an issue puts in front
_CLOCK = r"\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?"
_SAVED_WITH = re.compile(
    rf"^(?:[\w.@-]*\s*\|\s"
    rf"|(?:{_CLOCK}|[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d) [\w.-]+ [\w./@-]+\[\d+\]: "
    rf"|{_CLOCK}\s(?:std(?:out|err) [FP] )?"
    r"|\[pod/[^\]\s]+\] "
    r"|(?:\[\d{1,3}\] ){1,3}"
    r"|[>\s]+(?=\(\w+ pid=\d+\)))+"
)
# The kernel's lines: the journal's "Aug 19 18:34:27 host kernel: ", dmesg's "[ 7386.259769] " and
# "[Wed Aug 19 18:34:27 2026] ".
_KERNEL = re.compile(
    rf"(?:(?:{_CLOCK}|[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d) [\w.-]+ kernel: "
    r"(?:\[ *\d+\.\d{3,9}\] )?"
    r"|^(?:<\d+>)?\[ *\d{1,9}\.\d{6}\](?:\[ *T?\d+\])? "
    r"|^\[[A-Z][a-z][a-z] [A-Z][a-z][a-z] +\d{1,2} \d\d:\d\d:\d\d \d{4}\] )"
)
# "(EngineCore pid=914) ERROR 11-23 21:07:31 [core.py:1330] ", since 0.10.1 with the process;
# before that "ERROR 04-17 15:10:09 [engine.py:448] "; Ray's "(RayWorkerWrapper pid=9, ip=10.0.0.1)"
# in front; "2024-08-22 13:50:25 ERROR 200507 [worker_base.py:148] " of a logger set up elsewhere
_PROCESS = re.compile(r"\((?P<process>[^()]{0,60}?\bpid=\d+[^()]{0,40})\)\s?")
_VLLM = re.compile(
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+(?:\d{1,9} (?=\[))?"
    r"(?:\d\d-\d\d \d\d:\d\d(?::\d\d)?\s+\[?|\[)(?P<origin>[\w./<>-]+:\d+)\]\s?"
)
_RANK = re.compile(r"^\[rank\d+\]:\s?(?!\[)")
_OTHER_LEVELS = re.compile(
    r"^(?P<uvicorn>DEBUG|INFO|WARNING|ERROR|CRITICAL):\s+"
    r"|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+(?:- )?(?P<python>DEBUG|INFO|WARNING|ERROR|CRITICAL)\b"
    r"|^(?:\[rank\d+\]:)?\[?(?P<glog>[WEIF])\d{3,4} \d\d:\d\d:\d\d"
    r"|^\S+:\d+: \w*(?P<warnings>Warning): "
)
# What never stands behind anything but a margin.
_AT_THE_LEFT = re.compile(
    r"\([^()]{0,60}?\bpid=\d+[^()]{0,40}\) ?"
    r"|\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)(?: \d\d-\d\d \d\d:\d\d| \[|:  )"
    r"|Traceback \(most recent call last\)"
    r"|usage: vllm\b|\bvllm(?: serve)?: error: "
)
_WIDEST_MARGIN = 200
_GLOG = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
# A log whose line ends were written as the two characters "\n", as in a JSON field.
_ESCAPED_END = re.compile(r"(?<!\\)\\r?\\?n")
_ESCAPED_LINES = re.compile(r"\\n(?:\s*File \\?\"|Traceback \(most|\(\w+ pid=|\w+ \d\d-\d\d \d\d:)")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line without what stands in front of the message.

    `process` is "EngineCore pid=914", `KERNEL`, or "" where the line names none. `level` is
    Python's name, "" for a bare line (a traceback, a progress bar, another program's output).
    `origin` is "core.py:1330" or "". `text` keeps its indentation, which tells frames from
    exceptions. `raw` is the whole line without colours and line end.
    """

    process: str
    level: str
    origin: str
    text: str
    raw: str


class Margin:
    """What some tool put in front of every line of a log, learnt from the log itself.

    No list names every viewer, pager and quotation. But all of them put one shape before every
    line, and it stands bare in front of what vLLM, Python and argparse write at the very left.
    """

    def __init__(self) -> None:
        self._shape: re.Pattern[str] | None = None
        self._before: str | None = None

    def width(self, raw: str) -> int:
        """How many characters in front of this line are not the program's."""
        begin = _AT_THE_LEFT.search(raw, 0, _WIDEST_MARGIN)
        if begin:
            margin = raw[: begin.start()]
            # a lone indented traceback is quoted by the program; where all is indented, it is not
            if margin.strip() or self._before is None or self._before.startswith(margin):
                self._shape = _shape(margin) if margin else None
        self._before = raw if raw.strip() else self._before
        found = self._shape.match(raw) if self._shape else None
        return found.end() if found else 0


def _shape(margin: str) -> re.Pattern[str]:
    """Numbers and padding may change from line to line; what ends the margin may not."""
    head = margin.rstrip()
    loose = re.sub(r"\d+", r"\\d+", re.sub(r"(?:\\?\s)+", r"\\s+", re.escape(head)))
    return re.compile(loose + re.escape(margin[len(head) :]))


def log_lines(chunk: str, margin: Margin | None = None) -> Iterator[LogLine]:
    """The lines in what one read of a log gave, progress bars (separated by CR) one by one.

    `margin` is one object for each log; without it only the widely met forms are known.
    """
    if chunk.startswith('{"'):
        chunk = _unwrapped(chunk)
    if "[" in chunk:
        chunk = _COLOUR.sub("", chunk)
    if "\\n" in chunk and _ESCAPED_LINES.search(chunk):
        chunk = _ESCAPED_END.sub("\n", chunk).replace('\\"', '"')
    for raw in re.split(r"[\r\n]+", chunk) if "\r" in chunk or "\n" in chunk else (chunk,):
        if raw:
            raw = shortened(raw)
            yield _parsed(raw, margin.width(raw) if margin else 0)


def shortened(raw: str) -> str:
    """The line, cut in its middle to `LONGEST_TEXT` characters and a mark."""
    if len(raw) <= LONGEST_TEXT:
        return raw
    return f"{raw[: LONGEST_TEXT // 2]} … {raw[-LONGEST_TEXT // 2 :]}"


def _unwrapped(chunk: str) -> str:
    """The text in a line of JSON: docker's json-file, or vLLM's own JSON formatter (0.30 on)."""
    try:
        entry = json.loads(chunk)
    except (ValueError, RecursionError):
        return chunk
    if isinstance(entry.get("log"), str):
        return str(entry["log"])
    if isinstance(entry.get("message"), str) and "levelname" in entry:
        process = f"({entry.get('processName', 'process')} pid={entry.get('process', 0)})"
        head = f"{process} {entry['levelname']} 01-01 00:00:00 [{entry.get('name', 'vllm')}:0] "
        return "\n".join(head + line for line in entry["message"].splitlines())
    return chunk


def _parsed(raw: str, margin: int) -> LogLine:
    header = _VLLM.search(raw, 0, 300)
    if header:
        named = _PROCESS.search(raw, 0, header.start())
        process = named["process"] if named else ""
        return LogLine(process, header["level"], header["origin"], raw[header.end() :], raw)
    if kernel := _KERNEL.search(raw, 0, 120):
        return LogLine(KERNEL, "", "", raw[kernel.end() :], raw)
    text = _SAVED_WITH.sub("", raw[margin:])
    process = ""
    while named := _PROCESS.match(text):  # a test runner's or Ray's in front of vLLM's own
        process, text = named["process"], text[named.end() :]
    text = _RANK.sub("", text)
    level = ""
    if other := _OTHER_LEVELS.match(text):
        name = other["uvicorn"] or other["python"]
        level = name or _GLOG.get(other["glog"] or "", "WARNING")
        if other["uvicorn"]:
            text = text[other.end() :]
    return LogLine(process, level, "", text, raw)

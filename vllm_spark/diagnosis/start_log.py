"""Where a starting vLLM stands, read from its log line by line.

Nothing listens on `/health` until a start is over (291 s cold on an H200, twenty minutes with a
download on a Spark). The log shows the phase, how much of it is done and, at the end, how much
fits. It is read once, in constant memory. There is no clock inside, so the same lines always give
the same answer.

Texts are those of vLLM 0.8 to 0.33 (its sources and logs), bars those of tqdm and huggingface_hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from vllm_spark.diagnosis.log_lines import LogLine, log_lines


class Phase(Enum):
    """The phases of a start, in plain words."""

    STARTING = "starting"
    RESOLVING = "resolving the model"
    ENGINE = "starting the engine"
    DOWNLOADING = "downloading weights"
    LOADING = "loading weights"
    COMPILING = "compiling"
    PROFILING = "profiling memory"
    KV_CACHE = "sizing the KV cache"
    WARMING_UP = "warming up kernels"
    CAPTURING = "capturing graphs"
    SERVER = "starting the server"
    READY = "ready"


@dataclass(frozen=True)
class Progress:
    """One state of a progress bar.

    `done`, `total` and `rate` are as the bar prints them ("3", "7", "72.5 MB/s"); `unit` names
    what is counted ("shards", "graphs", or a file's name); `percent` is 0 to 100 or None;
    `seconds_left` is the bar's own estimate or None; `files` is "1 of 7" in a download.
    """

    done: str
    total: str
    unit: str
    percent: int | None = None
    rate: str = ""
    seconds_left: int | None = None
    files: str = ""


@dataclass
class StartFacts:
    """What the log says of the start: GiB, tokens, seconds. None where nothing was logged."""

    version: str | None = None
    weights_gib: float | None = None
    load_seconds: float | None = None
    compile_seconds: float | None = None
    peak_activation_gib: float | None = None
    available_kv_gib: float | None = None
    kv_tokens: int | None = None
    max_model_len: int | None = None
    max_concurrency: float | None = None
    engine_init_seconds: float | None = None


# How a message begins, and the phase that it opens.
_PHASES = (
    ("non-default args", Phase.RESOLVING),
    ("Resolved architecture", Phase.RESOLVING),
    ("This model supports multiple tasks", Phase.RESOLVING),
    ("Initializing a V", Phase.ENGINE),  # "V1 LLM engine", "V0 LLM engine"
    ("Using model weights format", Phase.DOWNLOADING),  # just before the hub is asked
    ("Starting to load model", Phase.LOADING),
    ("Loading model from scratch", Phase.LOADING),
    ("Time spent downloading weights", Phase.LOADING),
    ("Loading weights took", Phase.LOADING),
    ("Model loading took", Phase.PROFILING),
    ("Starting torch.compile", Phase.COMPILING),
    ("Using cache directory", Phase.COMPILING),
    ("Dynamo bytecode transform time", Phase.COMPILING),
    ("Warming up model for the compilation", Phase.COMPILING),
    ("torch.compile t", Phase.PROFILING),  # "takes", since 0.20 "took"
    ("Initial profiling/warmup run", Phase.PROFILING),
    ("Profiling CUDA graph memory", Phase.PROFILING),
    ("Available KV cache memory", Phase.KV_CACHE),
    ("GPU KV cache size", Phase.KV_CACHE),
    ("CPU KV cache size", Phase.KV_CACHE),
    ("Using FlashInfer autotune", Phase.WARMING_UP),
    ("Running FlashInfer autotune", Phase.WARMING_UP),
    ("JIT kernel warmup", Phase.WARMING_UP),
    ("Warming up ", Phase.WARMING_UP),
    ("Capturing the model for CUDA graphs", Phase.CAPTURING),
    ("Capturing cudagraphs for decoding", Phase.CAPTURING),
    ("Graph capturing finished", Phase.SERVER),
    ("init engine (", Phase.SERVER),
    ("Supported tasks", Phase.SERVER),
    ("Starting vLLM ", Phase.SERVER),  # "API server on", since 0.21 "server on"
    ("Application startup complete", Phase.READY),
    # of a server whose uvicorn is silent (uvicorn-log-level: warning)
    ("Engine 000: Avg prompt throughput", Phase.READY),
    ("Avg prompt throughput", Phase.READY),
)
# What a progress bar is called, the phase it belongs to and what it counts.
_BARS = (
    (re.compile(r"Fetching (?:\d+|\.\.\.) files"), Phase.DOWNLOADING, "files"),
    (re.compile(r"Capturing"), Phase.CAPTURING, "graphs"),
    (re.compile(r"[Ll]oading .*(?:shards|checkpoint)"), Phase.LOADING, "shards"),
    (re.compile(r"Loading safetensors using"), Phase.LOADING, "tensors"),
    (re.compile(r"(?i)warmup|kernels|autotun"), Phase.WARMING_UP, "kernels"),
    (re.compile(r"\.(?:safetensors|bin|json|pth?|gguf|model|txt|jinja)\b"), Phase.DOWNLOADING, ""),
    (re.compile(r"Processing Files|Downloading"), Phase.DOWNLOADING, ""),
)
# "desc:  42%|████▏     | 2.10G/5.00G [00:30<00:40, 72.5MB/s]"; vLLM's shards have
# "desc:  25% Completed | 1/4 [00:00<00:00,  8.19it/s]"; hf_xet's have no clock.
_BAR = re.compile(
    r"\b(?P<percent>\d{1,3})%(?: Completed \||\|[^|]*\|)\s*"
    r"(?P<done>[\d.]+)\s?(?P<done_unit>[kKMGT]?)i?B?\s*/\s*(?P<total>[\d.]+)\s?"
    r"(?P<total_unit>[kKMGT]?)i?B?"
    r"(?:\s*\[(?P<elapsed>[\d:]+)<(?P<left>[\d:?]+)(?:,\s*(?P<rate>[^\],]+))?"
    r"|,\s*(?P<xet_rate>[\d.]+\s?[kKMGT]?B/s))?"
)
_NUMBER = r"(-?\d{1,12}(?:\.\d+)?)"
_FACTS = (
    ("version ", "version", re.compile(r"(?:█|API server) +version v?(\d+\.\d[\w.+]*)")),
    ("LLM engine (v", "version", re.compile(r"LLM engine \(v(\d[\w.+]*)\)")),
    ("Model loading took", "weights_gib", re.compile(rf"took {_NUMBER} Gi?B")),
    ("Model loading took", "load_seconds", re.compile(rf"and {_NUMBER} seconds")),
    ("torch.compile t", "compile_seconds", re.compile(rf"torch\.compile t\w+ {_NUMBER} s")),
    ("peak activation", "peak_activation_gib", re.compile(rf"{_NUMBER} GiB for peak activation")),
    ("activation peak", "peak_activation_gib", re.compile(rf"peak memory takes {_NUMBER} ?GiB")),
    ("Available KV cache", "available_kv_gib", re.compile(rf"memory: {_NUMBER} GiB")),
    ("for KV Cache", "available_kv_gib", re.compile(rf"reserved {_NUMBER} GiB memory for KV")),
    ("for KV Cache is", "available_kv_gib", re.compile(rf"for KV Cache is {_NUMBER} ?GiB")),
    ("GiB for KV cache", "available_kv_gib", re.compile(rf"set \({_NUMBER}/[\d.]+\) GiB for KV")),
    ("KV cache size", "kv_tokens", re.compile(r"KV cache size: (\d[\d,]{0,20}) tokens")),
    ("Maximum concurrency", "max_model_len", re.compile(r"for (\d[\d,]{0,20}) tokens per")),
    ("Maximum concurrency", "max_concurrency", re.compile(rf"per request: {_NUMBER}x")),
    ("init engine (", "engine_init_seconds", re.compile(rf"\) took {_NUMBER} s")),
)


class StartLog:
    """Follows one start: feed it lines, ask `phase`, `progress`, `facts` or `sentence()`.

    One object per start: the log of a container that Docker restarted needs a new one each time.
    """

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.progress: Progress | None = None
        self.facts = StartFacts()
        self.changes = 0
        """How many times the phase has changed: a start that goes on has survived what it said."""
        self._files = ""

    def feed(self, chunk: str) -> Phase | None:
        """Reads a line (or a run of progress bars); returns the phase if it is a new one."""
        before = self.phase
        for line in log_lines(chunk):
            self.read(line)
        return self.phase if self.phase is not before else None

    def read(self, line: LogLine) -> None:
        """`feed` for a line that has been taken apart already."""
        if line.level == "":
            if "%" in line.text:
                self._read_bar(line.text)
        elif line.level == "INFO" and line.text:
            self._read_message(line.text)

    def sentence(self) -> str:
        """`loading weights 3 of 7 shards, 1.2 shards/s, about 3 s left`. Without the clock."""
        progress = self.progress
        if progress is None:
            return self.phase.value
        if progress.percent is None or progress.unit in {unit for _, _, unit in _BARS if unit}:
            parts = [f"{self.phase.value} {progress.done} of {progress.total} {progress.unit}"]
        else:
            files = f" {progress.files} files," if progress.files else ":"
            parts = [
                f"{self.phase.value}{files} {progress.unit} {progress.percent} %"
                f" of {progress.total}"
            ]
        if progress.rate:
            parts.append(progress.rate)
        if progress.seconds_left:
            parts.append(f"about {_duration(progress.seconds_left)} left")
        return ", ".join(parts)

    def _enter(self, phase: Phase) -> None:
        if phase is not self.phase:
            self.phase, self.progress = phase, None
            self.changes += 1

    def _read_message(self, text: str) -> None:
        if self.phase is not Phase.READY:
            for beginning, phase in _PHASES:
                if text.startswith(beginning):
                    self._enter(phase)
                    break
        for needle, fact, pattern in _FACTS:
            if needle in text and (found := pattern.search(text)):
                value = found[1].replace(",", "")
                kind = {"version": str, "kv_tokens": int, "max_model_len": int}.get(fact, float)
                setattr(self.facts, fact, kind(value))

    def _read_bar(self, text: str) -> None:
        bar = _BAR.search(text, 0, 400)
        if bar is None or self.phase is Phase.READY:
            return
        name = text[: bar.start()].strip(" :")
        kind = next((kind for kind in _BARS if kind[0].search(name)), None)
        if kind is None:
            return
        _, phase, unit = kind
        if unit == "files":
            self._files = f"{bar['done']} of {bar['total']}"
        self._enter(phase)
        rate = _rate(bar["rate"] or bar["xet_rate"] or "", unit)
        self.progress = Progress(
            done=_amount(bar["done"], bar["done_unit"], unit),
            total=_amount(bar["total"], bar["total_unit"], unit),
            unit=unit or (name.rpartition("/")[2] if "." in name else name),
            percent=int(bar["percent"]),
            rate=rate,
            seconds_left=_seconds(bar["left"] or ""),
            files="" if unit else self._files,
        )


def _amount(number: str, prefix: str, unit: str) -> str:
    return number if unit else f"{number} {prefix}B"


def _rate(text: str, unit: str) -> str:
    """tqdm's "8.19it/s" as "8.19 shards/s", "45.87s/it" as "45.87 s each", bytes spaced."""
    text = text.strip()
    if text.startswith("?") or not text:
        return ""
    if text.endswith("s/it"):
        return f"{text.removesuffix('s/it')} s each"
    if text.endswith("it/s"):
        return f"{text.removesuffix('it/s')} {unit or 'pieces'}/s"
    return re.sub(r"^([\d.]+)\s?(?=[kKMGT]?B/s)", r"\1 ", text)


def _seconds(clock: str) -> int | None:
    """tqdm's "01:02:03" or "00:40" in seconds; None for "?"."""
    if not clock or "?" in clock:
        return None
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part or 0)
    return seconds


def _duration(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"

"""Reports a step of the preparation: what it does, that it still runs, and why it failed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vllm_spark.errors import DiskFull, SetupError
from vllm_spark.project import ROOT, TOOLS

HEARTBEAT_SECONDS = 10.0

_FREE_DISK = "free some disk (`df -h` shows which; `docker system df` what Docker holds)"


def say(text: str) -> None:
    """Print a line of progress. Not on standard output: a shell reads that of `make env`."""
    print(text, file=sys.stderr, flush=True)


def run(
    what: str,
    argv: Sequence[str | Path],
    *,
    fix: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a long command: its last line every ten seconds, all of it in a file under .tools/logs.

    SetupError with the last lines and `fix` if it fails; DiskFull if the disk is full.
    """
    log = TOOLS / "logs" / f"{what.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    say(f"  {what} ...")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in argv],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    ended = threading.Event()
    threading.Thread(target=_heartbeat, args=(what, log, began, ended), daemon=True).start()
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        raise
    finally:
        ended.set()
    if code != 0:
        kind = SetupError
        lines = log.read_text(errors="replace").splitlines()[-8:]
        shown = "\n".join(f"    | {line}" for line in lines)
        if any("no space left on device" in line.lower() for line in lines):
            kind, fix = DiskFull, _FREE_DISK
        raise kind(f"{what} failed (exit code {code})\n{shown}\n  all of it: {log}\n  fix: {fix}")
    say(f"  {what}: done in {time.monotonic() - began:.0f} s")


def _heartbeat(what: str, log: Path, began: float, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        lines = log.read_bytes()[-400:].replace(b"\r", b"\n").decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        say(f"  {what}: {time.monotonic() - began:.0f} s  {last[:90]}")

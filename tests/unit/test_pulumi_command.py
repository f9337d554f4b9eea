"""How a run of `pulumi` ends, with a stand-in for the CLI that says what is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vllm_spark.project import ROOT


def ended(folder: Path, script: str) -> str:
    """What `run_pulumi` returns and prints when `pulumi` is this shell script."""
    cli = folder / "pulumi"
    cli.write_text(f"#!/bin/sh\n{script}\n")
    cli.chmod(0o755)
    program = "from vllm_spark.cli.pulumi_command import *; print(run_pulumi('up', stack='local'))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return run.stdout


def test_ctrl_c_is_left_to_pulumi_which_ends_in_order(tmp_path: Path) -> None:
    # A terminal signals both of them.
    told = ended(tmp_path, "kill -INT $PPID; echo the lock is given back >&2; exit 8")
    assert "the lock is given back" in told
    assert "Ended(code=8, interrupted=True, locked=False)" in told
    assert "Traceback" not in told


def test_a_lock_of_another_backend_says_how_to_end_it(tmp_path: Path) -> None:
    told = ended(
        tmp_path,
        "echo 'error: [409] Conflict: Another update is currently in progress.' >&2; exit 255",
    )
    assert "locked=True" in told
    assert 'eval "$(make -s env)" && pulumi cancel --yes --stack local' in told

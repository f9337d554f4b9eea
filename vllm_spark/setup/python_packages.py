"""Installs requirements into `.venv`: `python3 vllm_spark/setup/python_packages.py FILE STAMP`.

make runs it with the system's Python before anything is installed. So it imports the standard
library only, and Python 3.8 can read it, to say that it is too old.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Sequence  # noqa: UP035  Python 3.8

OLDEST = (3, 11)
VENV = Path(".venv")
PYTHON = str(VENV / "bin" / "python")
NAME = f"python{sys.version_info[0]}.{sys.version_info[1]}"

FIXES = (
    ("No space left|Disk quota", "free some disk (`df -h . /tmp` shows what is left), then repeat"),
    (
        "Permission denied",
        "`sudo chown -R $USER .` if this folder is yours (a `sudo make` leaves files of root), "
        "then repeat",
    ),
    ("[Pp]roxy", "see whether HTTPS_PROXY names the proxy of your network, then repeat"),
    (
        "Retrying|Could not fetch|[Cc]onnection|timed out",
        "see whether PyPI can be reached; in a network with a proxy, set HTTPS_PROXY, then repeat",
    ),
)
"""What pip and venv print, and what to do about it."""


def main(file: str, stamp: str) -> None:
    """Install the file and touch `stamp`; ends with a fix if that is not possible."""
    there = has_pip()
    if not there and sys.version_info < OLDEST:
        raise failed(
            f"python3 is Python {NAME[6:]}, and vllm-spark needs 3.11 or newer",
            "make the environment with a newer one (`python3.12 -m venv .venv`), then repeat",
        )
    print(f"Python packages: installing {file} into {VENV}", file=sys.stderr, flush=True)
    if not there:
        run([*how_to_make(), str(VENV)])
    run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", file])
    try:
        Path(stamp).touch()
    except OSError as error:
        print(error, file=sys.stderr)
        raise explained(str(error)) from None


def has_pip() -> bool:
    """Whether there is an environment with pip that runs here.

    One that was not made to the end has none; one of another processor does not run.
    """
    try:
        asked = subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False)
    except OSError:
        return False
    return asked.returncode == 0


def how_to_make() -> list[str]:
    """A command that makes an environment with pip at the path that follows."""
    if importlib.util.find_spec("ensurepip") is not None:
        return [sys.executable, "-m", "venv", "--clear"]
    # Debian and Ubuntu package ensurepip apart, and do not install it with Python.
    if shutil.which("uv") is not None:
        return ["uv", "venv", "--quiet", "--seed", "--clear", "--python", sys.executable]
    if shutil.which("virtualenv") is not None:
        return ["virtualenv", "--quiet", "--clear", "--python", sys.executable]
    raise failed(
        "this Python cannot make a virtual environment: its module ensurepip is not installed",
        f"`sudo apt install {NAME}-venv` (or install uv), then repeat",
    )


def run(command: Sequence[str]) -> None:
    """Run it and show what it prints."""
    said = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write(line)
            sys.stderr.flush()
            said += line
    if process.returncode != 0:
        raise explained(said)


def explained(said: str) -> SystemExit:
    """The end of the program, with the fix for what was printed before."""
    fixes = (fix for words, fix in FIXES if re.search(words, said))
    return failed("the Python packages cannot be installed", next(fixes, "see above"))


def failed(what: str, fix: str) -> SystemExit:
    """The end of the program, in words."""
    return SystemExit(f"error: {what}\n  fix: {fix}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)

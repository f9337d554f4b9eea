"""Stand-ins for programs on PATH: a shell script each, and a note of how it was called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Programs:
    """A folder that comes first on PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def add(self, name: str, script: str = "") -> None:
        """A program of this name that notes its arguments and does this."""
        program = self._folder / name
        program.write_text(f'#!/bin/sh\necho "$@" >> {self._folder}/{name}.calls\n{script}\n')
        program.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        """The arguments of each call, in the order of the calls."""
        file = self._folder / f"{name}.calls"
        return file.read_text().splitlines() if file.exists() else []

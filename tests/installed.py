"""Finds the programs of the development requirements, beside the Python that runs the tests."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def program(name: str) -> str:
    """The path of an installed program, independent of PATH."""
    return str(Path(sysconfig.get_path("scripts")) / name)

"""Where the user's project is: the folder with Pulumi.yaml, its stack files and its `.tools`.

The library may be installed anywhere; what it reads and writes for a user lies in the project. As
with `pulumi` and `git`, a command may be given in any folder below it.
"""

from __future__ import annotations

from pathlib import Path


def _find(start: Path) -> Path:
    """The nearest folder at or above `start` that has a Pulumi.yaml; `start` if there is none."""
    for folder in (start, *start.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    return start


ROOT = _find(Path.cwd())
"""The project of the working directory."""

TOOLS = ROOT / ".tools"
"""What a setup step makes and can make again; not in git."""

"""Scripts for the Python of the vLLM image, passed to it as text.

They run in one-shot containers, where the cache is mounted and the hub's client installed. The
public face is `script`, the text of a script. No script imports code of this project.
"""

from pathlib import Path

__all__ = ["script"]


def script(name: str) -> str:
    """The text of the script of this name."""
    return (Path(__file__).parent / f"{name}.py").read_text()

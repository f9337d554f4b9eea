"""What the health gate wants to know of a container, whoever finds it out.

`components/container_watch.py` asks a Docker daemon; tests tell stories. "Could not ask" is a value
of its own, because a daemon that is away must never read as healthy, gone or free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ContainerState:
    """What the Docker daemon says of a container. `start` names one start of it."""

    running: bool
    start: str
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True)
class Gone:
    """There is no such container."""


@dataclass(frozen=True)
class CouldNotAsk:
    """The Docker daemon did not say. It never means gone, stopped or healthy."""

    why: str


class Watch(Protocol):
    """The container's side of the gate."""

    def state(self) -> ContainerState | Gone | CouldNotAsk:
        """Ask the Docker daemon now."""

    def end_of(self, start: str) -> ContainerState | None:
        """How that start ended, of a container that runs again; None if Docker does not know."""

    def lines(self) -> list[str]:
        """The log lines that came since the last call."""

    def unreadable(self) -> str | None:
        """Why the log cannot be read, as with Docker's log driver `none`; None if it can be."""

    def ended(self) -> bool:
        """Whether the log has ended, as it does when the container stops."""

    def wait(self, seconds: float) -> None:
        """Return when a line comes, the log ends or `wake` is called; after `seconds` at most."""

    def wake(self) -> None:
        """End the present or else the next `wait`; for other threads."""

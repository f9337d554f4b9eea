"""The interface through which the health gate sees a container.

`vllm_spark/docker_host/container_watch.py` implements it with a Docker daemon, tests with scripted
states. "Could not ask" is a separate value, because a daemon that does not answer must never read
as healthy, gone or free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ContainerState:
    """A container's state according to the Docker daemon. `start` identifies one start of it."""

    running: bool
    """Docker calls a paused container running, and so does this."""
    start: str
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    paused: bool = False


@dataclass(frozen=True)
class Gone:
    """There is no such container."""


@dataclass(frozen=True)
class CouldNotAsk:
    """The Docker daemon did not answer. This never means gone, stopped or healthy."""

    why: str


class Watch(Protocol):
    """The container's side of the gate."""

    def state(self) -> ContainerState | Gone | CouldNotAsk:
        """Ask the Docker daemon now."""

    def end_of(self, start: str) -> ContainerState | None:
        """How that start ended, for a container that was started again; None if it is not known."""

    def lines(self) -> list[str]:
        """The log lines that came since the last call."""

    def unreadable(self) -> str | None:
        """Why the log cannot be read, as with Docker's log driver `none`; None if it can be."""

    def ended(self) -> bool:
        """Whether the log has ended, as it does when the container stops."""

    def wait(self, seconds: float) -> None:
        """Return when a line comes, the log ends, `wake` is called or `seconds` have passed."""

    def wake(self) -> None:
        """End the current `wait`, or else the next one. Other threads call this."""

"""The health gate's eye on one container: its state, and its log as it is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import docker
from docker.errors import DockerException, NotFound
from requests.exceptions import RequestException

from engine.gate import ContainerState, CouldNotAsk, Gone


class ContainerWatch:
    """Follows one container from now on; the log of its present start is read once, in a thread."""

    def __init__(self, container_id: str) -> None:
        self._id = container_id
        self._client = docker.from_env()
        self._moved = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        threading.Thread(target=self._follow, daemon=True).start()

    def state(self) -> ContainerState | Gone | CouldNotAsk:
        """What `docker inspect` says of the container now."""
        try:
            inspected: dict[str, Any] = self._client.api.inspect_container(self._id)
        except NotFound:
            return Gone()
        except (DockerException, RequestException) as error:
            return CouldNotAsk(str(error))
        state = inspected["State"]
        return ContainerState(
            running=state["Running"] and not state["Restarting"],
            start=state["StartedAt"],
            exit_code=state["ExitCode"],
            oom_killed=state["OOMKilled"],
            error=state["Error"],
        )

    def lines(self) -> list[str]:
        """The log lines that came since the last call."""
        with self._moved:
            lines, self._lines = self._lines, []
        return lines

    def ended(self) -> bool:
        """Whether the log has ended: the container stopped, or Docker cannot be reached."""
        with self._moved:
            return self._ended

    def wait(self, seconds: float) -> None:
        """Return when a line comes or the log ends, and after `seconds` at the latest."""
        with self._moved:
            if not self._lines and not self._ended:
                self._moved.wait(seconds)

    def stop(self) -> str | None:
        """Stop the container and keep it; why that could not be done, if it could not."""
        try:
            self._client.api.stop(self._id, timeout=STOP_SECONDS)
        except (DockerException, RequestException) as error:
            return str(error)
        return None

    def _follow(self) -> None:
        try:
            # A client of its own: requests does not promise one session to two threads.
            log = docker.from_env().api.logs(self._id, stream=True, follow=True)
            for line in _lines_of(log):
                with self._moved:
                    self._lines.append(line)
                    self._moved.notify_all()
        except (DockerException, RequestException):
            pass
        with self._moved:
            self._ended = True
            self._moved.notify_all()


STOP_SECONDS = 10
"""What a failed server gets to end by itself."""


def _lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    """Whole lines, those of progress bars too, which end in a carriage return."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            if line.strip():
                yield line.decode(errors="replace")
    if rest.strip():
        yield rest.decode(errors="replace")

"""The health gate's eye on one container: its state, and its log as it is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import Any

import docker
from docker.errors import APIError, NotFound

from vllm_spark.docker_host.connection import UNANSWERED, resolve
from vllm_spark.gate.watch import ContainerState, CouldNotAsk, Gone


class ContainerWatch:
    """Asks after one container; `follow` has its log read, once, in a thread."""

    def __init__(self, container_id: str) -> None:
        self._id = container_id
        self._client = _client()
        self._start: str | None = None
        self._changed = threading.Condition()
        self._stirred = False
        self._lines: list[str] = []
        self._ended = False
        self._unreadable: str | None = None

    def state(self) -> ContainerState | Gone | CouldNotAsk:
        """What `docker inspect` says of the container now."""
        state = _state(self._client, self._id)
        if isinstance(state, ContainerState):
            self._start = self._start or state.start
        return state

    def start_again(self) -> bool:
        """Start a container that does not run, as after a failed gate. Returns True if it did.

        Without a refresh Pulumi believes that it runs. Whether it was stopped or ended by itself
        does not matter: the gate judges the start that it makes here.
        """
        with suppress(*UNANSWERED):
            found: dict[str, Any] = self._client().inspect_container(self._id)
            if found["State"]["Status"] == "exited":
                self._client().start(self._id)
                return True
        return False

    def end_of(self, start: str) -> ContainerState | None:
        """How that start ended, of a container that runs again; None if Docker does not say.

        `docker inspect` knows the present start only; Docker keeps its last 256 events. docker-py
        reads events without a limit of its own, so this is a thread that is given up.
        """
        found: list[ContainerState] = []
        reader = threading.Thread(target=self._find_end, args=(start, found), daemon=True)
        reader.start()
        reader.join(EVENTS_SECONDS)
        return found[0] if found else None

    def _find_end(self, start: str, found: list[ContainerState]) -> None:
        began = datetime.fromisoformat(start).timestamp()
        filters = {"container": self._id, "event": ["oom", "die"]}
        oom_killed = False
        with suppress(*UNANSWERED):
            for event in _client()().events(
                since=int(began), until=int(time.time()) + 1, filters=filters, decode=True
            ):
                if event["timeNano"] < began * 1e9:
                    continue
                if event["Action"] == "die":
                    code = int(event["Actor"]["Attributes"]["exitCode"])
                    found.append(ContainerState(False, start, code, oom_killed))
                    return
                oom_killed = True

    def follow(self) -> None:
        """Begin to read the log of the container's present start."""
        threading.Thread(target=self._follow, daemon=True).start()

    def lines(self) -> list[str]:
        """The log lines that came since the last call."""
        with self._changed:
            lines, self._lines = self._lines, []
        return lines

    def unreadable(self) -> str | None:
        """Why Docker cannot read the log, in its own words; None if it can."""
        with self._changed:
            return self._unreadable

    def ended(self) -> bool:
        """Whether the log has ended: the container stopped, or Docker cannot be reached."""
        with self._changed:
            return self._ended

    def wait(self, seconds: float) -> None:
        """Return when a line comes, the log ends or `wake` is called; after `seconds` at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._stirred, seconds)
            self._stirred = False

    def wake(self) -> None:
        """End the present or else the next `wait`; for other threads."""
        with self._changed:
            self._stir()

    def stop(self) -> str:
        """Stop the container and keep it. What became of it, as the end of a sentence."""
        state = self.state()
        same = isinstance(state, ContainerState) and state.running and state.start == self._start
        # What Docker has started again meanwhile has nothing to end in order, and would not hear
        # SIGTERM: a container's first process ignores it until it has a handler.
        grace = STOP_SECONDS if same else 0
        try:
            self._client().stop(self._id, timeout=grace)
            code = self._client().inspect_container(self._id)["State"]["ExitCode"]
        except NotFound:
            return "is gone"
        except UNANSWERED as error:
            return f"could not be stopped ({error})"
        if code == KILLED and grace:
            return f"did not end within {STOP_SECONDS} s of SIGTERM, was killed, and is kept"
        return "is stopped and kept"

    def _stir(self) -> None:
        self._stirred = True
        self._changed.notify_all()

    def _follow(self) -> None:
        # A client of its own: requests does not promise one session to two threads.
        client, since = _client(), 0.0
        while True:
            state = _state(client, self._id)
            if isinstance(state, ContainerState):
                try:
                    self._read_log(client, since or datetime.fromisoformat(state.start).timestamp())
                except APIError as error:
                    with self._changed:
                        self._unreadable = str(error.explanation or error)
                        self._stir()
                    return  # it is not for lack of a daemon, and stays so
                since = time.time()
            with self._changed:
                self._ended = True
                self._stir()
            over = isinstance(state, ContainerState) and not state.running
            if over or isinstance(state, Gone):
                return
            # The stream ends with the container, and also with the Docker daemon.
            time.sleep(RECONNECT_SECONDS)

    def _read_log(self, client: Client, since: float) -> None:
        """Read until the stream ends. APIError where the daemon refuses, as for lack of a log."""
        try:
            log = client().logs(self._id, stream=True, follow=True, since=since)
            for line in _lines_of(log):
                with self._changed:
                    self._ended = False
                    self._lines.append(line)
                    self._stir()
        except APIError as error:
            # A container that is gone meanwhile is seen by its state.
            if error.response is not None and error.response.status_code == 404:
                return
            raise
        except UNANSWERED:
            pass


def still_runs(container_id: str, start: str | None) -> bool:
    """Whether the container runs, and has not been started again since `start`."""
    state = ContainerWatch(container_id).state()
    return isinstance(state, ContainerState) and state.running and state.start == start


Client = Callable[[], docker.APIClient]


def _client() -> Client:
    """Connects when first called, and again at the next call if that failed."""
    return cache(lambda: resolve().connect().api)


def _state(client: Client, container_id: str) -> ContainerState | Gone | CouldNotAsk:
    try:
        inspected: dict[str, Any] = client().inspect_container(container_id)
    except NotFound:
        return Gone()
    except UNANSWERED as error:
        return CouldNotAsk(str(error))
    state = inspected["State"]
    if state["Status"] in ("removing", "dead"):  # `docker rm --force` kills it first
        return Gone()
    return ContainerState(
        running=state["Running"] and not state["Restarting"],
        start=state["StartedAt"],
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        error=state["Error"],
    )


RECONNECT_SECONDS = 0.5
EVENTS_SECONDS = 5.0
STOP_SECONDS = 10
"""What a failed server gets to end by itself. vLLM frees the GPU at once, and then waits for its
clients without end; while its engine starts it may not hear SIGTERM at all."""

KILLED = 137


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

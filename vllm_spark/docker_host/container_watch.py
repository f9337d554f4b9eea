"""Watches one container for the health gate: its state, and its log as it is written."""

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

from vllm_spark.docker_host.connection import UNHEARD, resolve
from vllm_spark.docker_host.interruption import still_asking, until_interrupted
from vllm_spark.errors import Interrupted
from vllm_spark.gate.watch import ContainerState, CouldNotAsk, Gone
from vllm_spark.images import release_in


class ContainerWatch:
    """Watches one container; `follow` starts a thread that reads its log once."""

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
        """The container's state now, from `docker inspect`."""
        state = _state(self._client, self._id)
        if isinstance(state, ContainerState):
            self._start = self._start or state.start
        return state

    def version(self) -> str | None:
        """The vLLM release, if the name of the container's image tells it."""
        with suppress(*UNHEARD):
            return release_in(self._client().inspect_container(self._id)["Config"]["Image"])
        return None

    def start_again(self) -> bool:
        """Start a container that does not run, as after a failed gate. Returns True if it did.

        Without a refresh Pulumi assumes that it runs. It does not matter whether the container was
        stopped or ended by itself: the gate judges the start made here.
        """
        with suppress(*UNHEARD):
            found: dict[str, Any] = self._client().inspect_container(self._id)
            if found["State"]["Status"] == "exited":
                self._client().start(self._id)
                return True
        return False

    def end_of(self, start: str) -> ContainerState | None:
        """How that start ended, for a container that was started again; None if it is not known.

        `docker inspect` knows only the current start, but Docker keeps its last 256 events.
        docker-py reads events without a time limit.
        """
        with suppress(TimeoutError, *UNHEARD):
            return until_interrupted(lambda: self._find_end(start), limit=EVENTS_SECONDS)
        return None

    def _find_end(self, start: str) -> ContainerState | None:
        began = datetime.fromisoformat(start).timestamp()
        filters = {"container": self._id, "event": ["oom", "die"]}
        oom_killed = False
        for event in _client()().events(
            since=int(began), until=int(time.time()) + 1, filters=filters, decode=True
        ):
            if event["timeNano"] < began * 1e9:
                continue
            if event["Action"] == "die":
                code = int(event["Actor"]["Attributes"]["exitCode"])
                return ContainerState(False, start, code, oom_killed)
            oom_killed = True
        return None

    def follow(self) -> None:
        """Begin to read the log of the container's current start."""
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
        """Return when a line comes, the log ends, `wake` is called or `seconds` have passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._stirred, seconds)
            self._stirred = False

    def wake(self) -> None:
        """End the current `wait`, or else the next one. Other threads call this."""
        with self._changed:
            self._stir()

    def stop(self) -> str:
        """Stop the container and keep it. Returns the result as the end of a sentence."""
        state = self.state()
        same = isinstance(state, ContainerState) and state.running and state.start == self._start
        # A container that Docker has just started again has nothing to shut down, and ignores
        # SIGTERM: its first process has no handler yet.
        grace = STOP_SECONDS if same else 0
        try:
            with still_asking():
                self._client().stop(self._id, timeout=grace)
            code = self._client().inspect_container(self._id)["State"]["ExitCode"]
        except NotFound:
            return "is gone"
        except Interrupted:
            return "is being stopped, with which Docker goes on, and is kept"
        except UNHEARD as error:
            return f"could not be stopped ({error})"
        if code == KILLED and grace:
            return f"did not end within {STOP_SECONDS} s of SIGTERM, was killed, and is kept"
        return "is stopped and kept"

    def _stir(self) -> None:
        self._stirred = True
        self._changed.notify_all()

    def _follow(self) -> None:
        # A separate client: a session of `requests` is not guaranteed to be thread-safe.
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
                    return  # the daemon answers, so another attempt would fail as well
                since = time.time()
            with self._changed:
                self._ended = True
                self._stir()
            over = isinstance(state, ContainerState) and not state.running
            if over or isinstance(state, Gone):
                return
            # The stream ends when the container ends, and also when the Docker daemon does.
            time.sleep(RECONNECT_SECONDS)

    def _read_log(self, client: Client, since: float) -> None:
        """Read until the stream ends. APIError if the daemon refuses, as without a log."""
        try:
            log = client().logs(self._id, stream=True, follow=True, since=since)
            for line in _lines_of(log):
                with self._changed:
                    self._ended = False
                    self._lines.append(line)
                    self._stir()
        except APIError as error:
            # If the container was removed in the meantime, its state shows that.
            if error.response is not None and error.response.status_code == 404:
                return
            raise
        except UNHEARD:
            pass


def still_runs(container_id: str, start: str | None) -> bool:
    """Whether the container runs unpaused, and has not been started again since `start`."""
    state = ContainerWatch(container_id).state()
    if not isinstance(state, ContainerState) or state.paused:
        return False
    return state.running and state.start == start


Client = Callable[[], docker.APIClient]


def _client() -> Client:
    """Connects when first called, and again at the next call if that failed."""
    return cache(lambda: resolve().connect().api)


def _state(client: Client, container_id: str) -> ContainerState | Gone | CouldNotAsk:
    try:
        inspected: dict[str, Any] = client().inspect_container(container_id)
    except NotFound:
        return Gone()
    except UNHEARD as error:
        return CouldNotAsk(str(error))
    state = inspected["State"]
    if state["Status"] in ("removing", "dead"):  # `docker rm --force` kills it first
        return Gone()
    return ContainerState(
        running=state["Running"] and not state["Restarting"],
        start=state["StartedAt"],
        paused=state["Paused"],
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        error=state["Error"],
    )


RECONNECT_SECONDS = 0.5
EVENTS_SECONDS = 5.0
STOP_SECONDS = 10
"""The grace period of a failed server. vLLM frees the GPU at once and then waits for its clients
without a limit; while EngineCore starts, it may ignore SIGTERM."""

KILLED = 137


def _lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    """Whole lines, including those of progress bars, which end in a carriage return."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            if line.strip():
                yield line.decode(errors="replace")
    if rest.strip():
        yield rest.decode(errors="replace")

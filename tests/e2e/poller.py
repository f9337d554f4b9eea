"""A client that requests completions from a server all the time, and records the results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests

PAUSE_SECONDS = 0.1


class Poller:
    """Ten requests a second; `failures` holds what went wrong, in order."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model
        self.answers = 0
        self.failures: list[str] = []
        self._over = threading.Event()

    def run(self) -> None:
        request = {"model": self.model, "prompt": "Hello", "max_tokens": 1}
        while not self._over.wait(PAUSE_SECONDS):
            try:
                answer = requests.post(f"{self.url}/completions", json=request, timeout=10)
                answer.raise_for_status()
                self.answers += 1
            except requests.RequestException as error:
                self.failures.append(str(error))

    def stop(self) -> None:
        self._over.set()


@contextmanager
def polled(url: str, model: str) -> Iterator[Poller]:
    """Poll while the block runs. To require no gap, assert `not failures and answers`."""
    poller = Poller(url, model)
    thread = threading.Thread(target=poller.run)
    thread.start()
    try:
        yield poller
    finally:
        poller.stop()
        thread.join()

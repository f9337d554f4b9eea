"""HTTP requests to our own servers: direct, without the shell's proxy, and with a time limit.

`requests` sends even a call to 127.0.0.1 through `http_proxy`, unless `no_proxy` excludes it, and a
proxy's 403 would look like the server's. Also, its timeout limits each read, so a server that sends
a byte now and then never reaches it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import requests

Answer = TypeVar("Answer")


def direct() -> requests.Session:
    """A session that ignores the environment: no proxy, and no key from a .netrc."""
    session = requests.Session()
    session.trust_env = False
    return session


def within(seconds: float, ask: Callable[[], Answer]) -> Answer | None:
    """The result of `ask`; None if it takes longer than the limit, which abandons it."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None

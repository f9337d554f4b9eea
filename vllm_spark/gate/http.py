"""How a server of ours is asked: straight, whatever proxy the shell uses, and with an end.

requests sends even a call to 127.0.0.1 through `http_proxy`, unless `no_proxy` excepts it, and a
proxy's 403 would read as the server's own. And its limit is one for each read, which a server that
sends a byte now and then never reaches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import requests

Answer = TypeVar("Answer")


def direct() -> requests.Session:
    """A session that reads nothing from the environment: no proxy, and no key out of a .netrc."""
    session = requests.Session()
    session.trust_env = False
    return session


def within(seconds: float, ask: Callable[[], Answer]) -> Answer | None:
    """What `ask` returns; None if it has not returned by then, which gives it up."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None

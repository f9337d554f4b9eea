"""Ctrl-C, for everything that waits for Docker.

Pulumi calls the process of a dynamic provider in threads, and Ctrl-C reaches it as a call too. So
nothing raises KeyboardInterrupt where the code waits, and a read from a silent daemon would go on
until its time limit. Every wait of this room goes through `until_interrupted` instead: the
connection passes each request to it.

Pulumi's program is told nothing: Pulumi starts it and its plugins in process groups of their own,
and calls only the plugins (read in Pulumi 3.259: pkg/host/host.go, SignalCancellation). So the
process of the dynamic provider passes Ctrl-C on to the program, whose hooks wait too. Both know the
address of the engine, and a socket is named after it.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

from vllm_spark.errors import Interrupted

interrupted = threading.Event()
"""Set by Ctrl-C: everything that this process waits for ends."""

LOOK_SECONDS = 0.1
GRACE_SECONDS = 1.0
"""How long a request that Docker has already got may take after Ctrl-C. It is nearly always enough,
and a container whose id is known can be removed."""

Answer = TypeVar("Answer")
_still_asking: ContextVar[float | None] = ContextVar("_still_asking", default=None)


def until_interrupted(
    ask: Callable[[], Answer], *, limit: float | None = None, grace: float = 0.0
) -> Answer:
    """The result of `ask`, which runs in a thread and is abandoned after the limit or Ctrl-C.

    Interrupted `grace` seconds after Ctrl-C, and at once, without calling `ask`, if that was
    before. TimeoutError after `limit` seconds.
    """
    cleaning = _still_asking.get()
    if interrupted.is_set() and cleaning is None:
        raise Interrupted("interrupted; nothing was changed")
    grace = max(grace, cleaning or 0.0)
    answer: Future[Answer] = Future()
    threading.Thread(target=_settle, args=(answer, ask), daemon=True).start()
    over = None if limit is None else time.monotonic() + limit
    given_up: float | None = None
    while not wait([answer], LOOK_SECONDS).done:
        now = time.monotonic()
        if given_up is None and interrupted.is_set():
            given_up = now + grace
        if given_up is not None and now >= given_up:
            raise Interrupted("interrupted; nothing was changed")
        if over is not None and now >= over:
            raise TimeoutError
    return answer.result()


@contextmanager
def still_asking(seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """Requests in this block are sent after Ctrl-C too, for they clean up; each may take that long.

    Nothing that can be left to Docker needs more than the default.
    """
    token = _still_asking.set(seconds)
    try:
        yield
    finally:
        _still_asking.reset(token)


def listen(engine: str) -> None:
    """From now on `pass_on` for the same engine, in another process, is Ctrl-C for this one."""
    listener = socket.socket(socket.AF_UNIX)
    with suppress(OSError):  # this process listens already
        listener.bind(_name(engine))
        listener.listen()
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()


def pass_on(engine: str) -> None:
    """Ctrl-C for the process that listens, if there is one."""
    with socket.socket(socket.AF_UNIX) as caller, suppress(OSError):
        caller.connect(_name(engine))


def _name(engine: str) -> str:
    # Of Linux' abstract namespace: no file that a killed process would leave behind.
    return f"\0vllm-spark {engine}"


def _accept(listener: socket.socket) -> None:
    while not interrupted.is_set():
        caller, _ = listener.accept()
        with caller:
            peer = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            _process, user, _group = struct.unpack("3i", peer)
            if user == os.getuid():
                interrupted.set()


def _settle(answer: Future[Answer], ask: Callable[[], Answer]) -> None:
    try:
        answer.set_result(ask())
    except BaseException as error:
        answer.set_exception(error)

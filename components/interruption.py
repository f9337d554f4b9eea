"""What a dynamic provider does ends when nobody waits for it, and its process when Pulumi says so.

At the first Ctrl-C Pulumi calls `Cancel` on every plugin and then waits for what they have begun.
The SDK's host of dynamic providers answers that call and tells nobody (pulumi/dynamic/__main__.py
of 3.259), so that a gate would go on for as long as the model takes to load. grpc has taken hold of
the method by the time that our code is loaded; what can still be exchanged is its body.

Of a `pulumi` that was killed the host hears nothing either. It would live on as an orphan, and its
gate might stop the container that the next `up` waits for.

At the end of a command Pulumi sends SIGINT to one plugin after another. Who lives on for 5 s is
killed, and those whose turn comes after that are said to have "exited prematurely". The host leaves
the signal to Python, whose main thread has to be awake or asleep for it: while it falls asleep, as
it does once and for ever, a signal is lost.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from typing import Any

from pulumi.dynamic import ConfigureRequest, ResourceProvider

interrupted = threading.Event()
"""Set once this process was told to end what it does."""

ENGINE_LOOK_SECONDS = 1.0


class InterruptibleProvider(ResourceProvider):
    """The base of our dynamic providers. Each of them may be the first in its process."""

    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:  # noqa: ARG002  the SDK fixes the arguments
        """Make the process that hosts this provider hear the engine, before any other call."""
        host = getattr(sys.modules["__main__"], "DynamicResourceProviderServicer", None)
        if host is not None and host.Cancel.__code__ is not _cancel.__code__:
            _listen(host)


def _listen(host: Any) -> None:
    host.Cancel.__code__ = _cancel.__code__
    # Python's own signal() is for the main thread alone, and that one sleeps.
    ctypes.CDLL(None).signal(signal.SIGINT, signal.SIG_DFL)
    name, _, port = sys.argv[-1].rpartition(":")
    if port.isdecimal():  # where the engine listens; tests start the host without one
        threading.Thread(target=_end_with, args=(name, int(port)), daemon=True).start()


def _end_with(host: str, port: int) -> None:
    """End this process when the engine that started it is not there any more."""
    while not threading.Event().wait(ENGINE_LOOK_SECONDS):
        try:
            socket.create_connection((host, port), timeout=ENGINE_LOOK_SECONDS).close()
        except ConnectionRefusedError:
            os._exit(1)
        except OSError:
            continue


def _cancel(self: Any, request: Any, context: Any) -> Any:  # noqa: ARG001
    # It runs with the other module's globals, so it brings its own names.
    from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]

    from components.interruption import interrupted

    interrupted.set()
    return Empty()

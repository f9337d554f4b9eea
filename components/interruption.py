"""A wait ends when nobody waits any more: after Ctrl-C, and when the `pulumi` process is gone.

At the first Ctrl-C Pulumi calls `Cancel` on every plugin and then waits for what they have begun.
The SDK's host of dynamic providers answers that call and tells nobody (pulumi/dynamic/__main__.py
of 3.259), so that a gate would go on for as long as the model takes to load. grpc has taken hold of
the method by the time that our code is loaded; what can still be exchanged is its body.

Of a `pulumi` that was killed the host hears nothing either. It would live on as an orphan, and its
gate might stop the container that the next `up` waits for.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any

interrupted = threading.Event()
"""Set once this process was told to end what it does."""

ENGINE_LOOK_SECONDS = 1.0


def listen() -> None:
    """Have `interrupted` set by Pulumi's call. Nothing in other processes and other hosts."""
    host = getattr(sys.modules["__main__"], "DynamicResourceProviderServicer", None)
    if host is None or host.Cancel.__code__ is _cancel.__code__:
        return
    host.Cancel.__code__ = _cancel.__code__
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

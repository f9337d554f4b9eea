"""The base of the dynamic providers: readable errors, and an end when Pulumi no longer waits.

Pulumi's host of Python providers (pulumi/dynamic/__main__.py, read in SDK 3.272) offers no hook for
any of this, so the code patches the host from inside its process. Each patch has a test that fails
when a newer SDK breaks it (tests/e2e/test_gate_protocol.py):

- The host answers a failed call with `traceback.format_exc()`. Our errors explain themselves.
- At the first Ctrl-C Pulumi calls `Cancel` on every plugin and waits for running operations. The
  host does not pass the call on, so a gate would wait for as long as the model takes to load. When
  our code is loaded, grpc already holds the bound method; only its body can still be replaced.
- The host has four threads. Four gates that wait would keep the `Cancel` waiting too, and the
  checks of a fifth server.
- If `pulumi` is killed, the host lives on as an orphan, and its gate might stop the container that
  the next `up` waits for.
- At the end of a command Pulumi sends SIGINT to one plugin after another, and kills those still
  running after 5 s. Python handles a signal in its main thread, which in the host sleeps without
  end; a signal that arrives just as that thread blocks is lost.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pulumi
from pulumi.dynamic import ConfigureRequest, ResourceProvider

from vllm_spark.docker_host.interruption import interrupted
from vllm_spark.errors import VllmSparkError

THREADS = 64
ENGINE_LOOK_SECONDS = 1.0
GRACE_SECONDS = 10.0
"""Longer than an operation takes to remove its container (docker_host/one_shot.py)."""


def fingerprint(value: Any) -> str:
    """A short text that changes with the value, for a preview and for `diff`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def fingerprint_of(values: Mapping[str, Any]) -> pulumi.Output[str]:
    """The fingerprint of values that may be outputs; in a preview unknown if one of them is."""
    return pulumi.Output.all(**values).apply(fingerprint)


class Provider(ResourceProvider):
    """The base of our dynamic providers. Any of them may be the first in its process."""

    serialize_as_secret_always = False

    def configure(self, req: ConfigureRequest) -> None:  # noqa: ARG002  the SDK fixes the arguments
        """Prepare the process that hosts this provider, before any other call of it."""
        host = sys.modules["__main__"]
        servicer = getattr(host, "DynamicResourceProviderServicer", None)
        if servicer is not None and servicer.Cancel.__code__ is not _cancel.__code__:
            host.traceback = _PlainErrors  # type: ignore[attr-defined]
            servicer.Cancel.__code__ = _cancel.__code__
            # Python's signal() works only in the main thread, which sleeps.
            ctypes.CDLL(None).signal(signal.SIGINT, signal.SIG_DFL)
            _end_with_the_engine()
            for pool in gc.get_objects():
                if isinstance(pool, ThreadPoolExecutor):
                    pool._max_workers = THREADS


class _PlainErrors:
    """Stands in for the module `traceback` in the host."""

    @staticmethod
    def format_exc() -> str:
        """The text of an expected error; the traceback of any other."""
        error = sys.exc_info()[1]
        return str(error) if isinstance(error, VllmSparkError) else traceback.format_exc()


def _end_with_the_engine() -> None:
    """Watch the Pulumi engine, whose address is the last argument; tests pass no address."""
    name, _, port = sys.argv[-1].rpartition(":")
    if port.isdecimal():
        threading.Thread(target=_watch, args=(name, int(port)), daemon=True).start()


def _watch(host: str, port: int) -> None:
    """End this process when nothing listens at the address."""
    while not threading.Event().wait(ENGINE_LOOK_SECONDS):
        try:
            socket.create_connection((host, port), timeout=ENGINE_LOOK_SECONDS).close()
        except ConnectionRefusedError:
            # Running operations see this within half a second, and end in order.
            interrupted.set()
            threading.Event().wait(GRACE_SECONDS)
            os._exit(1)
        except OSError:
            continue


def _cancel(self: Any, request: Any, context: Any) -> Any:  # noqa: ARG001
    # It runs with the globals of the host's module, so it imports what it uses.
    import sys

    from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]

    from vllm_spark.docker_host.interruption import interrupted, pass_on

    interrupted.set()
    pass_on(sys.argv[-1])
    return Empty()

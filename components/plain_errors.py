"""How a dynamic provider fails in words: a person reads the message, and no Python or grpc."""

from __future__ import annotations

import inspect
import logging

import grpc  # type: ignore[import-untyped]

# grpc prints the traceback of whatever a provider raises, beside the message that Pulumi shows.
logging.getLogger("grpc._server").setLevel(logging.CRITICAL + 1)


class PlainError(Exception):
    """A failure that is explained by its text: what is wrong, why, and the mend."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        _tell_caller(text)


def _tell_caller(text: str) -> None:
    """Have grpc say `text` and nothing before it.

    What is raised it announces as "Exception calling application", unless the call's context holds
    details. Pulumi's host of providers keeps the context to itself, some frames above.
    """
    frame = inspect.currentframe()
    while frame is not None:
        context = frame.f_locals.get("context")
        if isinstance(context, grpc.ServicerContext):
            context.set_details(text)
            return
        frame = frame.f_back

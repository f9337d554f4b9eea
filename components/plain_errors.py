"""How a dynamic provider fails in words: a person reads the message, not Python's traceback."""

from __future__ import annotations

import logging

# grpc prints the traceback of whatever a provider raises, beside the message that Pulumi shows.
logging.getLogger("grpc._server").setLevel(logging.CRITICAL + 1)


class PlainError(Exception):
    """A failure that is explained by its text: what is wrong, why, and the mend."""

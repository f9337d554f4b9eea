"""Where a resource keeps what its provider works with and later commands read in the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECORD = "__record"
"""The input that holds it.

Pulumi keeps an input in the state whatever its name, and shows none whose name begins like this. So
a preview shows a changed flag in the container, and not once more in each resource that knows it.
"""


def record_of(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record among the inputs or outputs of a resource.

    Earlier versions wrote its keys beside the other properties; a refresh, a status or a
    rollback meets such a state. A last deployment that never answered has neither.
    """
    return properties.get(RECORD) or properties

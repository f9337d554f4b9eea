"""What a trial run calls a change of a resource."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_spark.changes import trial_provider
from vllm_spark.changes.trial_provider import CONTAINER, TrialProvider

MEMLOCK = {"name": "memlock", "soft": -1, "hard": -1}
STACK = {"hard": 67108864, "name": "stack", "soft": 67108864}


@pytest.fixture(autouse=True)
def ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in a test's order: in a message of protobuf their order is that of a hash table."""
    monkeypatch.setattr(trial_provider, "MessageToDict", lambda message: message)


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The properties of a container that differ."""
    urn = f"urn:pulumi:s::p::{CONTAINER}::server"
    asked = SimpleNamespace(urn=urn, old_inputs=old, news=new)
    return list(TrialProvider().Diff(asked, None).diffs)


@pytest.mark.parametrize("entries", [[MEMLOCK, STACK], [STACK, MEMLOCK]])
def test_neither_the_order_of_entries_nor_that_of_their_keys_is_a_change(
    entries: list[dict[str, Any]],
) -> None:
    turned = [dict(reversed(entry.items())) for entry in entries]
    assert changed({"ulimits": [MEMLOCK, STACK]}, {"ulimits": turned}) == []


def test_another_value_is_a_change_and_so_is_the_order_of_a_command() -> None:
    assert changed({"ulimits": [MEMLOCK]}, {"ulimits": [{**MEMLOCK, "soft": 1}]}) == ["ulimits"]
    assert changed({"command": ["a", "b"]}, {"command": ["b", "a"]}) == ["command"]

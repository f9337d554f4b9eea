"""What is said while an image is pulled, from the daemon's own events."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.docker_host import pull

GIB = 1 << 30


def downloading(layer: str, current: float, total: float) -> dict[str, Any]:
    progress = {"current": current * GIB, "total": total * GIB}
    return {"status": "Downloading", "id": layer, "progressDetail": progress}


def test_the_sizes_of_all_layers_that_are_known_so_far_are_added_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pull, "PROGRESS_SECONDS", -1.0)
    said: list[str] = []
    events = [
        {"status": "Pulling from vllm/vllm-openai", "id": "v0.32.0"},
        downloading("a", 1, 4),
        downloading("b", 0.5, 2),
        {"status": "Verifying Checksum", "id": "a"},
        {"status": "Download complete", "id": "a"},
        {"status": "Already exists", "id": "c", "progressDetail": {}},
        {"error": "unexpected EOF"},
    ]
    pull._follow(events, said.append)
    assert said[:2] == [
        "pulled 1.0 of 4.0 GiB known so far",
        "pulled 1.5 of 6.0 GiB known so far",
    ]
    assert said[-1] == "pulled 4.5 of 6.0 GiB known so far"


def test_progress_is_not_said_for_each_event() -> None:
    said: list[str] = []
    pull._follow([downloading("a", part / 100, 1) for part in range(100)], said.append)
    assert not said

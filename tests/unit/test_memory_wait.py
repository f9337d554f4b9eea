"""The wait between two servers: until the memory of the old one has come back, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.host_memory import Meminfo
from vllm_spark.docker_host import memory_wait
from vllm_spark.errors import PreflightError

SPARK = {
    "model": {"id": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"},
    "image": {"name": "nvcr.io/nvidia/vllm:25.09-py3"},
    "cache": {"volume": "weights"},
    "engine": {"max-model-len": 32768, "gpu-memory-utilization": 0.85},
}


def wait(monkeypatch: pytest.MonkeyPatch, available: Iterator[float], **keys: Any) -> None:
    """Run the wait on a host whose available GiB are these, one after the other."""

    class Host:
        def __init__(self, *_: str) -> None:
            pass

        def memory(self) -> Meminfo:
            return Meminfo(total_gib=121.69, available_gib=next(available), free_gib=5.0)

    monkeypatch.setattr(memory_wait, "DockerHost", Host)
    monkeypatch.setattr(memory_wait, "PAUSE_SECONDS", 0)
    settings = Settings.parse({**SPARK, **keys}, frozenset())
    memory_wait._wait_for_memory("vllm-spark", settings, print)


def test_the_new_server_waits_until_the_memory_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    available = iter([10.0, 60.0, 110.0, 1.0])
    wait(monkeypatch, available)
    assert next(available) == 1.0, "asked until there was enough, and no longer"


def test_memory_that_does_not_come_back_is_said_with_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_wait, "WAIT_SECONDS", 0)
    with pytest.raises(PreflightError, match=r"needs 103\.4 GiB; 10\.0 of the host's 121\.7"):
        wait(monkeypatch, iter([10.0] * 10))


def test_a_misfit_that_is_allowed_is_waited_for_and_then_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_wait, "SETTLED_SECONDS", 0)
    available = iter([10.0, 20.0, 30.0, 30.0, 1.0])
    wait(monkeypatch, available, host={"allowMisfit": True})
    assert next(available) == 1.0, "for as long as memory came back, and no longer"

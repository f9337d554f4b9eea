"""The Hypothesis profile of all tests (no result depends on the machine's load), and Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from vllm_spark.docker_host.interruption import interrupted

settings.register_profile("vllm-spark", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vllm-spark")


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Ctrl-C for what waits in this process; it is over after the test."""
    yield interrupted.set
    interrupted.clear()

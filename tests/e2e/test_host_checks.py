"""What the daemon's host says of itself, also where that is not the machine that runs Pulumi."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.engine_image import IMAGE
from components import host_checks
from components.host_checks import DockerHost

pytestmark = pytest.mark.docker


def test_the_memory_of_another_machine_is_read_in_a_container_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = DockerHost("no-such-container", IMAGE)
    here = host.memory()
    monkeypatch.setattr(host_checks, "MEMINFO", Path("/nowhere"))
    there = host.memory()
    assert there.total_gib == here.total_gib
    assert there.available_gib > 0

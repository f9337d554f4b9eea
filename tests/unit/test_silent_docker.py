"""A Docker daemon that falls silent in the middle of a talk is told in words by every command."""

from __future__ import annotations

import pytest

from tests.cli import vllm_spark
from tests.fake_daemon import FakeDaemon, hangs_up
from tests.unit.test_last_good import record
from vllm_spark.cli import deploy, rollback, status
from vllm_spark.cli.servers import Server
from vllm_spark.config.stack_file import load_stack, stack_file

SERVER = Server("vllm", "vllm-local", load_stack(stack_file("local")))


@pytest.mark.parametrize("command", ["status", "caches", "up", "rollback"])
def test_a_command_that_asks_docker_says_that_it_could_not(
    command: str, monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon
) -> None:
    daemon.fault("/(?!version)", hangs_up)
    monkeypatch.setattr(status, "require_pulumi", lambda: None)
    monkeypatch.setattr(status, "servers_of", lambda *_: [SERVER])
    monkeypatch.setattr(rollback, "read_state", lambda _stack: {"resources": [record()]})
    for module in (deploy, rollback):
        monkeypatch.setattr(module, "ensure_pulumi", lambda: None)
    ran = vllm_spark(command)
    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"error: no Docker daemon answers at {daemon.address}")
    assert "(DOCKER_HOST)" in ran.stderr
    assert "fix: start it there, or unset DOCKER_HOST" in ran.stderr

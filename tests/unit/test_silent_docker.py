"""A Docker daemon that falls silent in the middle of a talk is told in words by every command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cli import vllm_spark
from tests.unit.test_last_good import record
from vllm_spark.cli import deploy, rollback, status
from vllm_spark.cli.servers import Server
from vllm_spark.config.stack_file import load_stack, stack_file

SERVER = Server("vllm", "vllm-local", load_stack(stack_file("local")))


class FallsSilent(BaseHTTPRequestHandler):
    """Tells its version, which is what a client asks first, and hangs up on all else."""

    def do_GET(self) -> None:
        if self.path.endswith("/version"):
            answer = b'{"ApiVersion": "1.41"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def silent_docker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FallsSilent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


@pytest.mark.parametrize("command", ["status", "caches", "up", "rollback"])
def test_a_command_that_asks_docker_says_that_it_could_not(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "require_pulumi", lambda: None)
    monkeypatch.setattr(status, "servers_of", lambda *_: [SERVER])
    monkeypatch.setattr(rollback, "read_state", lambda _stack: {"resources": [record()]})
    for module in (deploy, rollback):
        monkeypatch.setattr(module, "ensure_pulumi", lambda: None)
    ran = vllm_spark(command)
    assert ran.exit_code == 2
    assert ran.stderr.startswith("error: no Docker daemon answers at tcp://127.0.0.1:")
    assert "(DOCKER_HOST)" in ran.stderr
    assert "fix: start it there, or unset DOCKER_HOST" in ran.stderr

"""A Docker engine that falls silent in the middle of a talk is told in words by every command."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from operations import caches, rollback, status


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
        monkeypatch.setattr(sys, "argv", ["command"])
        yield
        server.shutdown()


@pytest.mark.parametrize(("command", "code"), [(status.main, 2), (caches.main, 1)])
def test_a_command_that_asks_docker_says_that_it_could_not(
    command: Callable[[], int], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == code
    said = capsys.readouterr().err
    assert said.startswith("error: cannot ask Docker: ")
    assert "mend: start it, then repeat" in said


def test_the_way_back_begins_with_a_docker_that_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rollback, "ensure_pulumi", lambda: None)
    assert rollback.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("error: no Docker engine answers at DOCKER_HOST=")
    assert "mend: start it there" in said

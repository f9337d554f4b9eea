"""The fake Docker daemon, for every fast test of what asks Docker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_daemon import FakeDaemon


@pytest.fixture
def daemon(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeDaemon]:
    """A daemon that everything in this process talks to."""
    # The path of a unix socket has to be short.
    fake = FakeDaemon(tmp_path_factory.mktemp("daemon") / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", fake.address)
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.delenv("DOCKER_CERT_PATH", raising=False)
    yield fake
    if not fake.away:
        fake.goes_away()

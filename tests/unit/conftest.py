"""The fake Docker daemon, and ports: for every fast test of what asks Docker."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fake_daemon import DOCKERS, FakeDaemon
from tests.programs import Programs
from vllm_spark.docker_host import host


@pytest.fixture(params=DOCKERS)
def daemon(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FakeDaemon]:
    """A daemon that everything in this process talks to, of each recorded Docker."""
    # The path of a unix socket has to be short.
    fake = FakeDaemon(tmp_path_factory.mktemp("daemon") / "docker.sock", request.param)
    monkeypatch.setenv("DOCKER_HOST", fake.address)
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    monkeypatch.delenv("DOCKER_CERT_PATH", raising=False)
    yield fake
    if not fake.away:
        fake.goes_away()


@pytest.fixture
def available(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], None]:
    """Sets the available GiB of a Spark, which is this machine and the daemon's."""
    file = tmp_path / "meminfo"
    total_kib = 127_600_000
    daemon.info["MemTotal"] = total_kib * 1024
    monkeypatch.setattr(host, "MEMINFO", file)

    def set_available(gib: float) -> None:
        kib = int(gib * 2**20)
        file.write_text(
            f"MemTotal:  {total_kib} kB\nMemFree:  {kib // 2} kB\nMemAvailable:  {kib} kB\n"
        )

    set_available(115.0)
    return set_available


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Programs on PATH, for a test to add."""
    return Programs(tmp_path / "bin", monkeypatch)


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def held_port() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])

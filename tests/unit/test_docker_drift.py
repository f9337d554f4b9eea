"""What a container is compared with its declaration by, when Docker can be asked and when not."""

from __future__ import annotations

import pytest

from tests.fake_daemon import Container, FakeDaemon, hangs_up, refuses
from tests.unit.test_drift import running, settings
from vllm_spark.config.settings import Settings
from vllm_spark.docker_host.connection import connect
from vllm_spark.docker_host.drift import as_declared, drift_lines

NAME = "vllm-spark"


def add_declared(daemon: FakeDaemon, declared: Settings, name: str = NAME) -> Container:
    """A container that runs as these settings declare it, and the image that it was made from."""
    image = daemon.add_image(declared.image.name)
    daemon.images[declared.image.name]["Config"]["Env"] = ["PATH=/"]
    container = daemon.add(name, image=declared.image.name)
    made = running(declared)
    environment = [entry.replace("0123456789ab", image[7:19]) for entry in made["Config"]["Env"]]
    container.inspected["Config"].update(made["Config"], Env=environment)
    container.inspected["HostConfig"].update(made["HostConfig"])
    return container


@pytest.fixture
def server(daemon: FakeDaemon) -> Container:
    return add_declared(daemon, settings())


def lines(server: Container, declared: Settings) -> list[str]:
    return drift_lines(connect(), declared, (), server.inspected)


def test_what_runs_as_declared_does_not_differ(server: Container) -> None:
    assert lines(server, settings()) == []
    assert as_declared(NAME, settings(), ())


def test_a_difference_is_printed_and_no_reason_to_start_it(
    server: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_declared(NAME, settings(endpoint={"port": 9000}), ())
    said = f"{NAME}: drift: port: runs with 127.0.0.1:8000, declared 127.0.0.1:9000\n"
    assert capsys.readouterr().out == said


def test_a_name_that_means_another_image_by_now_is_a_difference(
    daemon: FakeDaemon, server: Container
) -> None:
    newer = daemon.add_image(settings().image.name)
    daemon.add_image("the old one, by its id")
    daemon.images["old"] = {"Id": server.inspected["Image"], "Config": {"Env": ["PATH=/"]}}
    assert any(line.startswith("image id:") and newer in line for line in lines(server, settings()))


def test_an_image_whose_name_is_gone_from_the_host_is_said(
    daemon: FakeDaemon, server: Container
) -> None:
    daemon.images["by id"] = daemon.images.pop(settings().image.name)
    assert any("declared (not on this host)" in line for line in lines(server, settings()))


def test_a_start_long_after_the_creation_is_said(server: Container) -> None:
    server.inspected["Created"] = "2026-11-24T08:00:00.123456789Z"
    server.inspected["State"]["StartedAt"] = "2026-11-25T09:00:00.5Z"
    (line,) = lines(server, settings())
    assert line == "start: created 2026-11-24T08:00:00Z, started again 2026-11-25T09:00:00Z"


def test_a_paused_container_has_to_be_unpaused(
    server: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    server.inspected["State"]["Paused"] = True
    assert not as_declared(NAME, settings(), ())
    assert "drift: state: paused" in capsys.readouterr().out


def test_a_container_that_is_gone_or_has_ended_has_to_be_started(
    server: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    server.exits(1)
    assert not as_declared(NAME, settings(), ())
    assert "drift: state: exited, exit code 1" in capsys.readouterr().out
    assert as_declared(NAME, settings(state="stopped"), ()), "as it should be"
    server.removed()
    assert not as_declared(NAME, settings(), ())
    assert "drift: the container is gone" in capsys.readouterr().out


def test_a_daemon_that_cannot_be_asked_is_neither_gone_nor_as_declared(
    daemon: FakeDaemon, server: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.fault("GET /containers", hangs_up)
    assert not as_declared(NAME, settings(), ())
    daemon.goes_away()
    assert not as_declared(NAME, settings(), ())
    said = capsys.readouterr().out
    assert "gone" not in said
    assert f"{NAME}: drift: unknown: no Docker daemon answers at" in said


def test_a_comparison_that_fails_is_unknown_and_the_container_runs(
    daemon: FakeDaemon, server: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.fault("GET /images", refuses(500, "layer not known"))
    assert as_declared(NAME, settings(), ())
    said = capsys.readouterr().out
    assert f"{NAME}: drift: unknown: " in said
    assert "layer not known" in said

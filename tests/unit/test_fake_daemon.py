"""The fake daemon answers docker-py as the real one does: other tests are only as true as it is."""

from __future__ import annotations

import threading
import time
from typing import Any

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from requests.exceptions import ConnectionError as Unreachable

from tests.fake_daemon import IMAGE, Container, FakeDaemon, hangs_up, refuses
from tests.fake_daemon_api import STDERR


@pytest.fixture
def client(daemon: FakeDaemon) -> docker.DockerClient:
    return docker.from_env()


def test_a_container_is_found_by_name_and_by_the_beginning_of_its_id(
    daemon: FakeDaemon, client: docker.DockerClient
) -> None:
    made = daemon.add("vllm-spark")
    assert client.api.inspect_container("vllm-spark")["Id"] == made.id
    assert client.api.inspect_container(made.id[:12])["Name"] == "/vllm-spark"
    with pytest.raises(NotFound, match="No such container: other"):
        client.api.inspect_container("other")


def test_only_what_runs_is_listed_unless_all_is_asked_for(
    daemon: FakeDaemon, client: docker.DockerClient
) -> None:
    daemon.add("runs")
    daemon.add("ended").exits(1)
    assert [one["Names"] for one in client.api.containers()] == [["/runs"]]
    assert len(client.api.containers(all=True)) == 2
    (port,) = client.api.containers()[0]["Ports"]
    assert port == {"IP": "127.0.0.1", "PrivatePort": 8000, "PublicPort": 8000, "Type": "tcp"}


def test_a_container_that_a_client_runs_is_created_started_read_and_removed(
    daemon: FakeDaemon, client: docker.DockerClient
) -> None:
    def process(container: Container) -> None:
        container.prints(f"ran {container.inspected['Config']['Cmd']}")
        container.exits(0)

    daemon.when_started = process
    assert client.containers.run(IMAGE, ["a", "b"], remove=True) == b"ran ['a', 'b']"
    assert daemon.containers == {}


def test_an_exit_code_is_told(daemon: FakeDaemon, client: docker.DockerClient) -> None:
    def process(container: Container) -> None:
        container.prints("no such file", STDERR)
        container.exits(1)

    daemon.when_started = process
    with pytest.raises(ContainerError, match="no such file"):
        client.containers.run(IMAGE, "cat", remove=True)


@pytest.mark.parametrize("tty", [False, True])
def test_a_log_is_followed_until_the_container_ends(
    daemon: FakeDaemon, client: docker.DockerClient, tty: bool
) -> None:
    made = daemon.add("vllm-spark", Tty=tty)
    made.prints("one\n")
    log = client.api.logs("vllm-spark", stream=True, follow=True)
    assert b"".join(next(log) for _ in range(4 if tty else 1)) == b"one\n"
    made.prints("two\n")
    made.exits(0)
    assert b"".join(log) == b"two\n"


def test_what_was_logged_before_is_left_out(
    daemon: FakeDaemon, client: docker.DockerClient
) -> None:
    made = daemon.add("vllm-spark")
    made.prints("before")
    since = time.time()
    made.prints("after")
    assert client.api.logs("vllm-spark", since=since) == b"after"


def test_a_log_that_cannot_be_read_is_the_daemons_error(
    daemon: FakeDaemon, client: docker.DockerClient
) -> None:
    daemon.add("vllm-spark", host={"LogConfig": {"Type": "none", "Config": {}}})
    with pytest.raises(APIError, match="logging driver does not support reading"):
        client.api.logs("vllm-spark")


def test_events_of_the_past_are_an_answer_and_those_to_come_are_waited_for(
    daemon: FakeDaemon, client: docker.DockerClient
) -> None:
    made = daemon.add("vllm-spark")
    made.exits(137, oom_killed=True)
    api: Any = client.api
    asked = {"filters": {"container": made.id}, "decode": True}
    past = [event["Action"] for event in api.events(since=1, until=int(time.time()), **asked)]
    assert past == ["start", "oom", "die"]
    coming = api.events(**asked)
    threading.Thread(target=made.starts, daemon=True).start()
    assert [next(coming)["Action"] for _ in range(4)][-1] == "start"


def test_what_cannot_be_done_is_refused(daemon: FakeDaemon, client: docker.DockerClient) -> None:
    made = daemon.add("vllm-spark")
    with pytest.raises(APIError, match="cannot remove a running container"):
        client.api.remove_container(made.id)
    client.api.remove_container(made.id, force=True)
    assert daemon.containers == {}
    with pytest.raises(ImageNotFound):
        client.images.get("nosuch:1")


def test_a_fault_comes_before_the_answer_until_it_is_healed(
    daemon: FakeDaemon, client: docker.DockerClient
) -> None:
    daemon.add("vllm-spark")
    daemon.fault("GET /containers/vllm-spark/json", refuses(500, "cannot do it"))
    with pytest.raises(APIError, match="cannot do it"):
        client.api.inspect_container("vllm-spark")
    daemon.heal()
    daemon.fault("GET /info", hangs_up)
    assert client.api.inspect_container("vllm-spark")
    with pytest.raises(Unreachable):
        client.info()


def test_a_daemon_that_comes_back_has_its_containers(daemon: FakeDaemon) -> None:
    daemon.add("vllm-spark")
    daemon.goes_away()
    with pytest.raises(docker.errors.DockerException):
        docker.from_env()
    daemon.comes_back()
    assert docker.from_env().api.inspect_container("vllm-spark")["State"]["Running"]

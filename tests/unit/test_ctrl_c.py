"""Ctrl-C ends whatever an `up` waits for, and says what goes on in Docker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from components.preflight import PreflightProvider
from components.provider import Provider
from tests.e2e.gate_process import GateProcess
from tests.fake_daemon import IMAGE, PATIENCE_SECONDS, FakeDaemon, never_answers, never_ends
from tests.fake_daemon_api import STDERR
from tests.unit.test_preflight import NAME, ON_GPU, US, image_says, settings
from tests.unit.test_provider import gate_properties
from vllm_spark.deployment.records import RECORD
from vllm_spark.docker_host import interruption
from vllm_spark.docker_host.connection import connect
from vllm_spark.docker_host.container_watch import ContainerWatch
from vllm_spark.docker_host.interruption import interrupted, until_interrupted
from vllm_spark.docker_host.memory_wait import make_room
from vllm_spark.docker_host.one_shot import OneShot
from vllm_spark.docker_host.pull import pull
from vllm_spark.errors import Interrupted

ENGINE = "127.0.0.1:nobody"
SERVERS = 6
"""More than the threads with which Pulumi's host of Python providers starts."""


def ended_by_cancel(
    daemon: FakeDaemon, asked: str, properties: dict[str, Any], provider: Provider | None = None
) -> str:
    """What the provider says at Ctrl-C, which comes when it waits for the answer to `asked`."""
    with ThreadPoolExecutor(1) as pool, GateProcess(provider) as process:
        waiting = pool.submit(process.create, properties)
        daemon.until_asked(asked)
        process.cancel()
        with pytest.raises(grpc.RpcError) as ended:
            waiting.result(PATIENCE_SECONDS)
    text = str(ended.value.details())
    assert "Traceback" not in text
    return text


# Over Pulumi's own protocol


@pytest.mark.parametrize("request_", ["GET /version", r"GET /containers/.*/json"])
def test_a_daemon_that_never_answers_is_not_waited_for(daemon: FakeDaemon, request_: str) -> None:
    daemon.fault(request_, never_answers)
    said = ended_by_cancel(daemon, request_, gate_properties(daemon.add(NAME).id))
    assert "the wait for vllm-spark was interrupted" in said
    assert "The container goes on" in said


def test_more_servers_than_the_host_has_threads_are_all_interrupted(daemon: FakeDaemon) -> None:
    containers = [daemon.add(f"{NAME}-{number}") for number in range(SERVERS)]
    with ThreadPoolExecutor(SERVERS) as pool, GateProcess() as process:
        process.changes({}, gate_properties("4567"))  # Pulumi too begins with one call
        waits = [
            pool.submit(process.create, gate_properties(container.id)) for container in containers
        ]
        for container in containers:
            daemon.until_asked(f"GET /containers/{container.id}/logs")
        process.cancel()
        for wait in waits:
            with pytest.raises(grpc.RpcError, match="was interrupted"):
                wait.result(PATIENCE_SECONDS)


def test_a_failed_server_that_is_being_stopped_keeps_its_cause(daemon: FakeDaemon) -> None:
    container = daemon.add(NAME)
    container.prints("vllm serve: error: unrecognized arguments: --bogus\n")
    container.exits(2)
    daemon.fault("POST /containers/.*/stop", never_answers)
    daemon.when_started = lambda container: container.exits(2)
    said = ended_by_cancel(daemon, "POST /containers/.*/stop", gate_properties(container.id))
    assert "vllm-spark does not serve\n  cause:" in said
    assert "is being stopped, with which Docker goes on, and is kept" in said


def test_a_takeover_that_is_interrupted_says_whom_it_stops(daemon: FakeDaemon, port: int) -> None:
    daemon.add("other", **ON_GPU)
    daemon.fault("POST /containers/.*/stop", never_answers)
    image_says(daemon)
    declared = settings(port, gpu={"takeover": True}, host={"allowMisfit": True})
    record = {
        "containerName": NAME,
        "identity": vars(US),
        "imageId": "sha256:1",
        "settings": declared.declared(),
    }
    properties = {RECORD: record, "declaration": "1"}
    said = ended_by_cancel(daemon, "POST /containers/.*/stop", properties, PreflightProvider())
    assert "interrupted while other was being stopped" in said
    assert "Docker goes on stopping it; `docker start other` brings it back." in said


# In this process


def test_nothing_is_asked_of_docker_after_ctrl_c(
    daemon: FakeDaemon, ctrl_c: Callable[[], None]
) -> None:
    client = connect()
    container = daemon.add(NAME)
    ctrl_c()
    with pytest.raises(Interrupted):
        client.api.stop(container.id)
    assert container.running


def test_a_request_that_docker_has_got_may_end(
    daemon: FakeDaemon, ctrl_c: Callable[[], None]
) -> None:
    """The id of a container that Docker has just created is needed to remove it."""
    container = daemon.add(NAME)

    def late(request: Any) -> None:
        ctrl_c()
        request.refuse(409, "it was answered")

    daemon.fault("POST /containers/.*/stop", late)
    with pytest.raises(Exception, match="it was answered"):
        connect().api.stop(container.id)


def test_what_never_ends_is_abandoned(ctrl_c: Callable[[], None]) -> None:
    def without_end() -> None:
        ctrl_c()
        threading.Event().wait()

    with pytest.raises(Interrupted):
        until_interrupted(without_end)


def test_cleaning_up_may_take_longer_than_other_requests(ctrl_c: Callable[[], None]) -> None:
    def slow() -> str:
        threading.Event().wait(5 * interruption.LOOK_SECONDS)
        return "removed"

    ctrl_c()
    with interruption.still_asking(PATIENCE_SECONDS):
        assert until_interrupted(slow) == "removed"
    with pytest.raises(Interrupted), interruption.still_asking(0):
        until_interrupted(slow)


def test_a_download_whose_progress_nobody_reads_any_more_is_removed(
    daemon: FakeDaemon, ctrl_c: Callable[[], None]
) -> None:
    """As of a Pulumi that was killed: the provider hears it just when its output is closed."""

    def report(_line: str) -> None:
        ctrl_c()
        raise BrokenPipeError

    daemon.when_started = lambda container: container.prints("1 of 7 files\n", STDERR)
    OneShot(IMAGE, "", (), labels={}).run(connect(), limit_seconds=PATIENCE_SECONDS, report=report)
    assert not daemon.containers


def once_asked(daemon: FakeDaemon, request: str, act: Callable[[], None]) -> None:
    """Do something once the daemon has got this request."""

    def run() -> None:
        daemon.until_asked(request)
        act()

    threading.Thread(target=run, daemon=True).start()


def test_events_that_never_end_are_not_waited_for(
    daemon: FakeDaemon, ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm_spark.docker_host.container_watch.EVENTS_SECONDS", 3600)
    container = daemon.add(NAME)
    daemon.fault("GET /events", never_ends)
    once_asked(daemon, "GET /events", ctrl_c)
    watch = ContainerWatch(container.id)
    assert watch.end_of(container.inspected["State"]["StartedAt"]) is None


def test_a_pull_ends(daemon: FakeDaemon, ctrl_c: Callable[[], None]) -> None:
    daemon.fault("POST /images/create", never_ends)
    once_asked(daemon, "POST /images/create", ctrl_c)
    with pytest.raises(Interrupted):
        pull("example/absent:v1", None, print)


def test_the_wait_for_memory_ends_and_says_what_is_gone(
    daemon: FakeDaemon,
    available: Callable[[float], None],
    port: int,
    ctrl_c: Callable[[], None],
) -> None:
    available(10.0)
    once_asked(daemon, "GET /info", ctrl_c)
    with pytest.raises(Interrupted) as ended:
        make_room(NAME, US, settings(port), print)
    assert str(ended.value).startswith(f"interrupted before {NAME} was created")


# From the provider's process to the program's


def test_the_program_hears_it_from_the_provider(
    daemon: FakeDaemon, ctrl_c: Callable[[], None]
) -> None:
    interruption.listen(ENGINE)
    interruption.listen(ENGINE)  # a second server of the program
    with GateProcess(engine=ENGINE) as process:
        process.changes({}, gate_properties("4567"))
        process.cancel()
        assert interrupted.wait(PATIENCE_SECONDS)


def test_a_provider_whose_program_does_not_listen_is_interrupted_alone() -> None:
    interruption.pass_on("127.0.0.1:nobody else")
    assert not interrupted.is_set()

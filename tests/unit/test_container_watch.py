"""The gate's eye on a container: its state, its log and its end, with a daemon that has faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.fake_daemon import PATIENCE_SECONDS, Container, FakeDaemon, hangs_up, refuses
from vllm_spark.docker_host import container_watch
from vllm_spark.docker_host.container_watch import ContainerWatch, still_runs
from vllm_spark.gate.watch import ContainerState, CouldNotAsk, Gone


@pytest.fixture(autouse=True)
def no_thread_is_left(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every log's reader ends with its container; between two tries it waits only a moment."""
    monkeypatch.setattr(container_watch, "RECONNECT_SECONDS", 0.01)
    yield
    if daemon.away:
        daemon.comes_back()
    for container in list(daemon.containers.values()):
        container.exits(0)
    join_readers()


def join_readers() -> None:
    readers = [one for one in threading.enumerate() if one.name.endswith("(_follow)")]
    for reader in readers:
        reader.join(PATIENCE_SECONDS)
        assert not reader.is_alive(), "it reads on, and its container has ended"


@pytest.fixture
def server(daemon: FakeDaemon) -> Container:
    return daemon.add("vllm-spark")


@pytest.fixture
def watch(server: Container) -> ContainerWatch:
    return ContainerWatch(server.id)


def lines_until(watch: ContainerWatch, last: str) -> list[str]:
    """The log's lines, once one with this text has come."""
    lines: list[str] = []
    over = time.monotonic() + PATIENCE_SECONDS
    while not any(last in line for line in lines):
        watch.wait(over - time.monotonic())
        lines += watch.lines()
        assert time.monotonic() < over, f"{last} did not come: {lines}"
    return lines


def until_ended(watch: ContainerWatch) -> None:
    over = time.monotonic() + PATIENCE_SECONDS
    while not watch.ended():
        watch.wait(over - time.monotonic())
        assert time.monotonic() < over, "the log did not end"


# State


def test_a_running_container_is_one_start(server: Container, watch: ContainerWatch) -> None:
    started = server.inspected["State"]["StartedAt"]
    assert watch.state() == ContainerState(running=True, start=started)


def test_the_end_of_a_container_is_told_as_docker_tells_it(
    server: Container, watch: ContainerWatch
) -> None:
    server.exits(137, oom_killed=True, error="no space left")
    state = watch.state()
    assert isinstance(state, ContainerState)
    assert not state.running
    assert (state.exit_code, state.oom_killed, state.error) == (137, True, "no space left")


def test_a_container_that_docker_is_about_to_restart_does_not_run(
    server: Container, watch: ContainerWatch
) -> None:
    server.inspected["State"].update(Status="restarting", Running=True, Restarting=True)
    state = watch.state()
    assert isinstance(state, ContainerState)
    assert not state.running


@pytest.mark.parametrize("status", ["removing", "dead"])
def test_what_is_being_removed_is_gone(
    status: str, server: Container, watch: ContainerWatch
) -> None:
    server.inspected["State"]["Status"] = status
    assert watch.state() == Gone()


def test_what_was_removed_is_gone(server: Container, watch: ContainerWatch) -> None:
    server.removed()
    assert watch.state() == Gone()


def test_a_daemon_that_fails_hangs_up_or_is_away_could_not_be_asked(
    daemon: FakeDaemon, watch: ContainerWatch
) -> None:
    assert isinstance(watch.state(), ContainerState)
    daemon.fault("/json", refuses(500, "cannot do it now"))
    state = watch.state()
    assert isinstance(state, CouldNotAsk)
    assert "cannot do it now" in state.why
    daemon.heal()
    daemon.fault("/json", hangs_up)
    assert isinstance(watch.state(), CouldNotAsk)
    daemon.heal()
    daemon.goes_away()
    assert isinstance(watch.state(), CouldNotAsk)
    daemon.comes_back()
    assert isinstance(watch.state(), ContainerState), "asked again as soon as it is back"


def test_a_daemon_that_is_away_from_the_beginning_is_asked_again(
    daemon: FakeDaemon, watch: ContainerWatch
) -> None:
    daemon.goes_away()
    assert isinstance(watch.state(), CouldNotAsk)
    daemon.comes_back()
    assert isinstance(watch.state(), ContainerState)


# Start again


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_a_server_that_somebody_stopped_is_started_again(
    policy: str, daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    server.inspected["HostConfig"]["RestartPolicy"]["Name"] = policy
    server.exits(0)
    assert watch.start_again()
    assert server.running


def test_a_server_that_runs_is_left_alone(daemon: FakeDaemon, watch: ContainerWatch) -> None:
    assert not watch.start_again()
    assert not any("/start" in asked for asked in daemon.asked)


def test_a_container_that_was_never_started_is_pulumis_to_start(
    server: Container, watch: ContainerWatch
) -> None:
    server.inspected["State"].update(Status="created", Running=False)
    assert not watch.start_again()


def test_a_start_that_docker_refuses_is_left_to_the_gate_to_tell(
    daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    server.exits(0)
    daemon.fault("/start", refuses(500, "driver failed programming external connectivity"))
    assert not watch.start_again()


# How a start ended that was followed by another


def test_the_end_of_an_earlier_start_is_found_among_the_events(
    server: Container, watch: ContainerWatch
) -> None:
    start = server.inspected["State"]["StartedAt"]
    server.exits(137, oom_killed=True)
    server.starts()
    server.exits(0)
    server.starts()
    assert watch.end_of(start) == ContainerState(False, start, 137, oom_killed=True)


def test_an_end_before_that_start_is_not_its_end(server: Container, watch: ContainerWatch) -> None:
    server.exits(1)
    server.starts()
    start = server.inspected["State"]["StartedAt"]
    assert watch.end_of(start) is None
    server.exits(3)
    assert watch.end_of(start) == ContainerState(False, start, 3)


@pytest.mark.parametrize("fault", [refuses(500, "no events"), hangs_up], ids=["500", "hangs up"])
def test_events_that_cannot_be_had_leave_the_end_unknown(
    fault: object, daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    server.exits(1)
    daemon.fault("GET /events", fault)  # type: ignore[arg-type]
    assert watch.end_of(server.inspected["State"]["StartedAt"]) is None


# The log


def test_the_log_is_read_from_the_start_of_the_container_until_its_end(
    server: Container, watch: ContainerWatch
) -> None:
    server.prints("before\n")
    server.exits(0)
    server.starts()
    server.prints("one\ntwo\n")
    watch.follow()
    assert lines_until(watch, "two") == ["one", "two"]
    assert not watch.ended()
    server.prints("last words, without an end of line")
    server.exits(1)
    until_ended(watch)
    assert watch.lines() == ["last words, without an end of line"]


@pytest.mark.parametrize("tty", [False, True], ids=["frames", "tty"])
def test_lines_are_whole_however_the_log_is_cut_into_pieces(daemon: FakeDaemon, tty: bool) -> None:
    server = daemon.add("pieces", Tty=tty)
    server.drips = not tty
    watch = ContainerWatch(server.id)
    watch.follow()
    for piece in ("load", "ing\n\n  ", "\n50%\r", "100%\nend\n"):
        server.prints(piece)
    assert lines_until(watch, "end") == ["loading", "50%", "100%", "end"]


def test_bytes_that_are_no_text_are_replaced(server: Container, watch: ContainerWatch) -> None:
    server.prints(b"\xff\xfe end\n")
    watch.follow()
    assert lines_until(watch, "end") == ["\ufffd\ufffd end"]


def test_a_log_that_breaks_off_is_taken_up_again(
    daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    watch.follow()
    server.prints("one\n")
    lines_until(watch, "one")
    server.cut_log()
    daemon.until_asked("logs.*since=")
    assert daemon.wait_for(lambda: sum("/logs" in asked for asked in daemon.asked) > 1, 20)
    server.prints("two\n")
    assert lines_until(watch, "two") == ["two"]
    assert not watch.ended()


def test_a_daemon_that_comes_back_is_followed_again(
    daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    watch.follow()
    server.prints("one\n")
    lines_until(watch, "one")
    daemon.goes_away()
    until_ended(watch)
    daemon.comes_back()
    assert daemon.wait_for(lambda: sum("/logs" in asked for asked in daemon.asked) > 1, 20)
    server.prints("two\n")
    assert lines_until(watch, "two") == ["two"]


@pytest.mark.parametrize("gone", [True, False], ids=["removed", "ended"])
def test_the_log_of_what_does_not_run_ends_and_is_not_asked_for_again(
    gone: bool, daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    server.exits(1)
    if gone:
        server.removed()
    watch.follow()
    until_ended(watch)
    join_readers()
    assert sum("/logs" in asked for asked in daemon.asked) == (0 if gone else 1)


def test_a_wait_ends_when_it_is_woken_before_or_meanwhile(watch: ContainerWatch) -> None:
    watch.wake()
    watch.wait(PATIENCE_SECONDS)
    threading.Timer(0.01, watch.wake).start()
    began = time.monotonic()
    watch.wait(PATIENCE_SECONDS)
    assert time.monotonic() - began < PATIENCE_SECONDS


# Stop


def stopped(daemon: FakeDaemon, watch: ContainerWatch) -> tuple[str, str]:
    """What became of the container, and with which grace Docker was asked to stop it."""
    said = watch.stop()
    grace = next((asked.rpartition("t=")[2] for asked in daemon.asked if "/stop" in asked), "")
    return said, grace


def test_a_server_that_ends_when_asked_to_is_kept(
    daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    watch.state()
    assert stopped(daemon, watch) == ("is stopped and kept", "10")
    assert server.status == "exited"


def test_a_server_that_has_to_be_killed_is_said_to_have_been(
    daemon: FakeDaemon, watch: ContainerWatch
) -> None:
    watch.state()
    daemon.when_stopped = lambda container: container.exits(137)
    said = "did not end within 10 s of SIGTERM, was killed, and is kept"
    assert stopped(daemon, watch) == (said, "10")


def test_what_docker_has_started_again_gets_no_grace(
    daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    watch.state()
    server.exits(1)
    server.starts()
    daemon.when_stopped = lambda container: container.exits(137)
    assert stopped(daemon, watch) == ("is stopped and kept", "0")


def test_what_has_ended_by_itself_is_kept(server: Container, watch: ContainerWatch) -> None:
    watch.state()
    server.exits(1)
    assert watch.stop() == "is stopped and kept"


def test_what_is_gone_is_said_to_be(server: Container, watch: ContainerWatch) -> None:
    watch.state()
    server.removed()
    assert watch.stop() == "is gone"


def test_a_stop_that_docker_does_not_answer_is_said(
    daemon: FakeDaemon, server: Container, watch: ContainerWatch
) -> None:
    watch.state()
    daemon.fault("/stop", refuses(500, "cannot stop container: permission denied"))
    assert "could not be stopped" in (said := watch.stop())
    assert "permission denied" in said
    assert server.running


# The gate's record


def test_an_answer_is_true_for_the_very_start_that_gave_it(
    daemon: FakeDaemon, server: Container
) -> None:
    start = server.inspected["State"]["StartedAt"]
    assert still_runs(server.id, start)
    assert not still_runs(server.id, None)
    server.inspected["State"]["Paused"] = True
    assert not still_runs(server.id, start), "paused"
    server.inspected["State"]["Paused"] = False
    server.exits(0)
    assert not still_runs(server.id, start)
    server.starts()
    assert not still_runs(server.id, start), "another start"
    daemon.goes_away()
    assert not still_runs(server.id, start), "nobody could tell"

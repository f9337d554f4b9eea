"""The health gate on a container of the fake daemon, and a server that answers, or does not."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests import fake_server
from tests.fake_daemon import PATIENCE_SECONDS, Container, FakeDaemon, refuses
from vllm_spark.docker_host import container_watch
from vllm_spark.docker_host.wait_for_answer import Answered, wait_for_answer
from vllm_spark.errors import GateError, Interrupted
from vllm_spark.gate import gate
from vllm_spark.gate.probe import Probe

Serve = Callable[..., int]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_watch, "RECONNECT_SECONDS", 0.01)
    monkeypatch.setattr(gate, "LAST_WORDS_SECONDS", 0.05)


@pytest.fixture
def container(daemon: FakeDaemon) -> Iterator[Container]:
    made = daemon.add("vllm-spark")
    before = set(threading.enumerate())  # another test's reader may have no daemon left to ask
    yield made
    if daemon.away:
        daemon.comes_back()
    made.exits(0)
    for reader in set(threading.enumerate()) - before:
        if reader.name.endswith("(_follow)"):
            reader.join(20)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts the fake server with some switches; the port it listens on."""
    processes: list[subprocess.Popen[str]] = []

    def start(**switches: str) -> int:
        port = free_port()
        told = {f"FAKE_{name.upper()}": value for name, value in switches.items()}
        process = subprocess.Popen(
            [sys.executable, fake_server.__file__, "model"],
            env={**os.environ, "FAKE_PORT": str(port), "FAKE_DEADLINE": "120", **told},
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert "startup complete" in process.stdout.readline()
        return port

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def once_asked(daemon: FakeDaemon, request: str, times: int, act: Callable[[], object]) -> None:
    """Do something as soon as Docker has been asked so often."""

    def run() -> None:
        assert daemon.wait_for(
            lambda: sum(request in asked for asked in daemon.asked) >= times, PATIENCE_SECONDS
        )
        act()

    threading.Thread(target=run, daemon=True).start()


def wait(
    container: Container,
    port: int,
    *,
    timeout: float = 60,
) -> Answered:
    return wait_for_answer(
        "vllm-spark",
        container.id,
        Probe(f"http://127.0.0.1:{port}/v1", "model", None, quick=2, patience=20),
        timeout_seconds=timeout,
        stall_seconds=60,
    )


def test_a_server_that_answers_is_noted_with_its_start(
    container: Container, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = wait(container, serve())
    assert answered.start == container.inspected["State"]["StartedAt"]
    assert answered.answer_tokens >= 1
    assert answered.answer_seconds >= 0
    assert re.search(r"vllm-spark: model answered after \d+\.\d s", capsys.readouterr().out)
    assert container.running


def test_what_the_log_says_of_memory_is_noted(container: Container, serve: Serve) -> None:
    said = "INFO 11-23 20:43:35 [kv_cache_utils.py:2177] GPU KV cache size: 956,240 tokens"
    container.prints(f"(EngineCore pid=914) {said}\n")
    assert wait(container, serve(fault="busy-1")).memory["kvTokens"] == 956240


def test_a_server_that_somebody_stopped_is_started_again_and_waited_for(
    container: Container, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    container.exits(0)
    wait(container, serve())
    assert "vllm-spark: was stopped; starting it again" in capsys.readouterr().out


def test_a_container_that_ends_is_explained_by_its_log(
    container: Container, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    container.prints("vllm: error: unrecognized arguments: --bogus-flag\n")
    once_asked(daemon, "/logs", 1, lambda: container.exits(2))
    with pytest.raises(GateError) as failed:
        wait(container, free_port())
    said = str(failed.value)
    assert said.startswith("vllm-spark does not serve\n  cause: ")
    assert "--bogus-flag" in said
    assert "\n    | vllm: error: unrecognized arguments: --bogus-flag" in said
    end = "The container is stopped and kept; `docker logs vllm-spark` shows all of its log."
    assert said.endswith(end)
    assert "vllm-spark does not serve: " in capsys.readouterr().out


def test_a_flag_is_explained_for_the_release_of_the_image(daemon: FakeDaemon) -> None:
    container = daemon.add("vllm-spark", image="vllm/vllm-openai:v0.24.0")
    container.prints("vllm: error: unrecognized arguments: --bogus-flag\n")
    once_asked(daemon, "/logs", 1, lambda: container.exits(2))
    with pytest.raises(GateError, match=r"this vLLM 0\.24\.0 does not know: --bogus-flag"):
        wait(container, free_port())


def test_a_container_that_is_killed_for_memory_is_said_to_be(
    container: Container, daemon: FakeDaemon
) -> None:
    once_asked(daemon, "/logs", 1, lambda: container.exits(137, oom_killed=True))
    with pytest.raises(GateError, match="memory"):
        wait(container, free_port())


def test_an_earlier_start_is_explained_by_dockers_events(
    container: Container, daemon: FakeDaemon
) -> None:
    def crash() -> None:
        with daemon.change():
            container.exits(137, oom_killed=True)
            container.starts()

    # Asked by the one who starts it again, by the log's reader (twice), and by the gate.
    once_asked(daemon, "/json", 5, crash)
    with pytest.raises(GateError, match="memory"):
        wait(container, free_port())


def test_a_server_that_never_answers_is_stopped_when_the_time_is_up(
    container: Container, daemon: FakeDaemon
) -> None:
    with pytest.raises(GateError, match=r"did not answer within 0 s(.|\n)*is stopped and kept"):
        wait(container, free_port(), timeout=0.2)
    assert container.status == "exited"


def test_a_stop_that_fails_is_part_of_the_error(container: Container, daemon: FakeDaemon) -> None:
    daemon.fault("/stop", refuses(500, "permission denied"))
    with pytest.raises(GateError, match=r"The container could not be stopped .*permission denied"):
        wait(container, free_port(), timeout=0.2)


def test_a_container_that_is_removed_meanwhile_is_said_to_be(
    container: Container, daemon: FakeDaemon
) -> None:
    once_asked(daemon, "/logs", 1, container.removed)
    with pytest.raises(GateError, match=r"was removed while it started(.|\n)*container is gone"):
        wait(container, free_port())


def test_ctrl_c_leaves_the_container_as_it_is(
    container: Container, ctrl_c: Callable[[], None]
) -> None:
    ctrl_c()
    with pytest.raises(Interrupted, match=r"was interrupted(.|\n)*container goes on"):
        wait(container, free_port())
    assert container.running


def test_a_daemon_that_comes_back_is_no_failure(
    container: Container, daemon: FakeDaemon, serve: Serve
) -> None:
    port = serve(fault="busy-2")
    daemon.fault("/json", refuses(500, "busy"))
    once_asked(daemon, "/json", 4, daemon.heal)
    assert wait(container, port).start == container.inspected["State"]["StartedAt"]

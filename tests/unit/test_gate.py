"""The gate's verdict: a container's story on one side, a fake server's answers on the other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vllm_spark.gate import gate
from vllm_spark.gate.gate import Abandoned, Failed, Gate, Healthy
from vllm_spark.gate.probe import NotYet, Probe, Ready, Refused
from vllm_spark.gate.watch import ContainerState, CouldNotAsk, Gone

ENGINE = Path(__file__).resolve().parents[1] / "fake_server.py"
RUNNING = ContainerState(running=True, start="first start")
AGAIN = ContainerState(running=True, start="second start")

State = ContainerState | Gone | CouldNotAsk
StartServer = Callable[..., int]


class Story:
    """A container whose states are told in advance; the last one stays."""

    def __init__(
        self, *states: State, log: tuple[str, ...] = (), end: ContainerState | None = None
    ) -> None:
        self._states = list(states)
        self._log = list(log)
        self._end = end

    def state(self) -> State:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def now(self, state: State) -> None:
        self._states = [state]

    def end_of(self, start: str) -> ContainerState | None:
        assert start == "first start"
        return self._end

    def lines(self) -> list[str]:
        log, self._log = self._log, []
        return log

    def unreadable(self) -> str | None:
        return None

    def ended(self) -> bool:
        return len(self._states) > 1

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))

    def wake(self) -> None:
        pass


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts the fake server with some switches and returns its port once it listens."""
    processes: list[subprocess.Popen[str]] = []

    def start(**switches: str) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        environment = {f"FAKE_{key.upper()}": value for key, value in switches.items()}
        process = subprocess.Popen(
            [sys.executable, str(ENGINE), "model"],
            env={**os.environ, "FAKE_PORT": str(port), **environment},
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
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def verdict(
    port: int,
    story: Story | None = None,
    *,
    timeout: float = 20,
    stall: float = 20,
    key: str | None = None,
    patience: float = 20,
) -> Healthy | Failed:
    probe = Probe(f"http://127.0.0.1:{port}/v1", "model", key, quick=0.5, patience=patience)
    result = Gate(
        story or Story(RUNNING), probe, print, timeout_seconds=timeout, stall_seconds=stall
    ).run()
    assert not isinstance(result, Abandoned)
    return result


def failure(port: int, story: Story | None = None, **options: float) -> Failed:
    result = verdict(port, story, **options)  # type: ignore[arg-type]
    assert isinstance(result, Failed)
    return result


NOBODY = 9  # the discard port: nothing listens there


def test_a_server_that_answers_is_healthy(start_server: StartServer) -> None:
    result = verdict(start_server())
    assert isinstance(result, Healthy)
    assert result.start == "first start"


def test_a_proxy_that_the_shell_is_told_to_use_is_not_asked(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = start_server()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{start_server(fault='status-500')}")
    assert isinstance(verdict(port), Healthy)


@pytest.mark.parametrize("fault", ["reset", "busy"])
def test_what_a_starting_server_does_is_asked_again(start_server: StartServer, fault: str) -> None:
    assert isinstance(verdict(start_server(fault=fault)), Healthy)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("wedge", "did not answer"),
        ("drip", "never finished its answer"),
        ("dead-engine", "answers 500 on /v1/completions"),
        ("no-tokenizer", "answers 400 on /v1/completions"),
        ("garbage", "empty or broken"),
        ("half", "broke off"),
        ("redirect", "answers 302"),
    ],
)
def test_an_answer_that_is_wrong_fails_at_once(
    start_server: StartServer, fault: str, cause: str
) -> None:
    patience = 0.5 if fault in ("wedge", "drip") else 20  # which never answer
    assert cause in failure(start_server(fault=fault), patience=patience).cause


@pytest.mark.parametrize("fault", ["hang", "unhealthy", "no-http"])
def test_a_server_that_never_gets_ready_is_given_up_after_the_timeout(
    start_server: StartServer, fault: str
) -> None:
    assert "within 1 s" in failure(start_server(fault=fault), timeout=1).cause


def test_the_body_of_a_refused_completion_is_the_evidence(start_server: StartServer) -> None:
    assert "tokenizer is not set" in failure(start_server(fault="no-tokenizer")).evidence[0]


def test_another_model_on_the_port_fails_and_is_named(start_server: StartServer) -> None:
    assert "serves other and not model" in failure(start_server(model="other")).cause


def test_the_api_key_is_sent(start_server: StartServer) -> None:
    port = start_server(key="right")
    assert isinstance(verdict(port, key="right"), Healthy)
    failed = verdict(port, key="wrong")
    assert isinstance(failed, Failed)
    assert "401" in failed.cause
    assert "vllm-spark:apiKey" in failed.fix
    assert "wrong" not in str(failed), "a key is never shown"


def test_a_container_that_ends_fails_with_its_last_lines_whatever_its_exit_code() -> None:
    ended = ContainerState(running=False, start="first start", exit_code=0)
    failed = failure(NOBODY, Story(RUNNING, ended, log=("the reason",)))
    assert "exit code 0" in failed.cause
    assert "the reason" in failed.evidence


def test_the_cause_is_the_engines_own_and_not_the_servers_hint() -> None:
    core = "(EngineCore pid=26) ERROR 11-23 12:00:00 [core.py:1330]"
    log = (
        f"{core} EngineCore failed to start.",
        f"{core} Traceback (most recent call last):",
        f"{core} ValueError: Load format `nosuch` is not supported",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    )
    ended = ContainerState(running=False, start="first start", exit_code=1)
    failed = failure(NOBODY, Story(RUNNING, ended, log=log))
    assert "nosuch" in failed.cause
    assert not any("See root cause above" in line for line in failed.evidence)


def test_a_start_that_failed_in_its_log_is_lost_though_the_process_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "ENDS_BY_ITSELF_SECONDS", 0.1)
    core = "(EngineCore pid=26) ERROR 11-23 12:00:00 [core.py:1330]"
    log = (
        f"{core} EngineCore failed to start.",
        f"{core} Traceback (most recent call last):",
        f"{core} ValueError: Load format `nosuch` is not supported",
    )
    assert "nosuch" in failure(NOBODY, Story(RUNNING, log=log)).cause


def test_a_container_killed_for_memory_says_so() -> None:
    killed = ContainerState(running=False, start="first start", exit_code=137, oom_killed=True)
    assert "memory" in failure(NOBODY, Story(RUNNING, killed)).cause


def test_a_restart_voids_the_verdict_even_of_a_server_that_answers(
    start_server: StartServer,
) -> None:
    assert "started again" in failure(start_server(), Story(RUNNING, RUNNING, AGAIN)).cause


def test_how_a_start_ended_is_told_though_the_container_runs_again() -> None:
    out_of_memory = ContainerState(False, "first start", exit_code=137, oom_killed=True)
    killed = failure(NOBODY, Story(RUNNING, RUNNING, AGAIN, end=out_of_memory))
    assert "killed for memory" in killed.cause
    ended = ContainerState(False, "first start", exit_code=0)
    assert "exit code 0" in failure(NOBODY, Story(RUNNING, RUNNING, AGAIN, end=ended)).cause


def assert_its_end_is_told(story: Story, probe: Probe) -> None:
    result = Gate(story, probe, print, timeout_seconds=20, stall_seconds=20).run()
    assert isinstance(result, Failed)
    assert "exit code 0" in result.cause


def test_a_container_that_dies_right_after_its_answer_fails(start_server: StartServer) -> None:
    port = start_server(fault="die-after-answer")
    story = Story(RUNNING)

    class AnsweredAndDead(Probe):
        def answer(self) -> Ready | NotYet | Refused:
            answer = super().answer()
            story.now(ContainerState(running=False, start="first start", exit_code=0))
            return answer

    assert_its_end_is_told(story, AnsweredAndDead(f"http://127.0.0.1:{port}/v1", "model", None))


def test_a_death_that_docker_has_not_noticed_yet_voids_the_answer(
    start_server: StartServer,
) -> None:
    port = start_server(fault="die-after-answer")
    story = Story(RUNNING)

    class NoticedLate(Probe):
        def listening(self) -> NotYet | Refused | None:
            said = super().listening()
            if said is not None:
                story.now(ContainerState(running=False, start="first start", exit_code=0))
            return said

    assert_its_end_is_told(story, NoticedLate(f"http://127.0.0.1:{port}/v1", "model", None))


def test_a_removed_container_fails() -> None:
    assert "removed" in failure(NOBODY, Story(RUNNING, Gone())).cause


def test_docker_not_answering_is_neither_healthy_nor_dead(start_server: StartServer) -> None:
    away = CouldNotAsk("connection refused")
    port = start_server()
    assert isinstance(verdict(port, Story(RUNNING, away, away, RUNNING)), Healthy)
    failed = failure(NOBODY, Story(RUNNING, away), timeout=1)
    assert "cannot ask Docker" in failed.cause


def test_a_docker_engine_that_was_slow_once_hides_no_later_cause() -> None:
    killed = ContainerState(False, "first start", exit_code=137, oom_killed=True)
    slow = CouldNotAsk("timed out")
    assert "killed for memory" in failure(NOBODY, Story(RUNNING, slow, RUNNING, killed)).cause


def test_what_a_log_still_has_to_say_when_the_container_has_ended_is_read() -> None:
    core = "(EngineCore pid=26) ERROR 11-23 12:00:00 [core.py:1330]"

    class Slow(Story):
        rest = (
            f"{core} EngineCore failed to start.",
            f"{core} Traceback (most recent call last):",
            *(f'{core}   File "core.py", line {line}' for line in range(20)),
            f"{core} ValueError: Load format `nosuch` is not supported",
        )

        def wait(self, _seconds: float) -> None:
            first, self.rest = self.rest[:1], self.rest[1:]
            self._log += first

        def ended(self) -> bool:
            return not self.rest

    ended = ContainerState(running=False, start="first start", exit_code=1)
    assert "nosuch" in failure(NOBODY, Slow(ended)).cause


def test_a_container_ended_by_a_restart_of_docker_is_not_blamed(start_server: StartServer) -> None:
    away, again = CouldNotAsk("connection refused"), ContainerState(running=True, start="second")
    failed = failure(start_server(fault="hang"), Story(RUNNING, away, again))
    assert "Docker daemon was restarted" in failed.cause
    assert failed.fix == "repeat the command"


def test_silence_is_a_stall_and_lines_that_only_repeat_are_silence() -> None:
    class Nagging(Story):
        count = 0

        def lines(self) -> list[str]:
            self.count += 1
            return [f"INFO 11-24 12:00:00 [x.py:1] no block found in {self.count} seconds"]

    failed = failure(NOBODY, Nagging(RUNNING), stall=1)
    assert "nothing new for 1 s" in failed.cause
    assert "vllm-spark:health.stallSeconds" in failed.fix


def test_a_start_that_makes_progress_does_not_stall() -> None:
    class Loading(Story):
        done = 0

        def lines(self) -> list[str]:
            self.done = min(self.done + 1, 100)
            bar = f"Loading safetensors checkpoint shards: {self.done}% Completed | {self.done}/100"
            return [f"{bar} [00:01<00:09, 1.00it/s]"]

    assert (
        "did not answer within 2 s" in failure(NOBODY, Loading(RUNNING), timeout=2, stall=1).cause
    )


@pytest.mark.parametrize("fault", ["pooling", "pooling-400", "chat-only", "no-chat-template"])
def test_a_model_is_asked_for_what_it_makes(start_server: StartServer, fault: str) -> None:
    assert isinstance(verdict(start_server(fault=fault)), Healthy)


def test_a_death_is_noticed_while_a_question_hangs(start_server: StartServer) -> None:
    ended = ContainerState(running=False, start="first start", exit_code=1)
    story = Story(RUNNING, RUNNING, RUNNING, ended)
    assert "exit code 1" in failure(start_server(fault="hang"), story).cause


def test_a_wait_that_is_interrupted_ends_without_a_verdict() -> None:
    interrupted, story = threading.Event(), Story(RUNNING)
    probe = Probe(f"http://127.0.0.1:{NOBODY}/v1", "model", None)
    interrupted.set()
    gate = Gate(story, probe, print, timeout_seconds=20, stall_seconds=20, interrupted=interrupted)
    assert gate.run() == Abandoned("starting")

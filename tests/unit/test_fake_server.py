"""The fake server does what its switches say: other tests are only as true as it is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from tests import fake_server
from vllm_spark.diagnosis.verdict import LogDiagnosis

LOGS = Path(__file__).resolve().parents[1] / "data" / "logs"
TIMED = LOGS / "30b_guide_warm.timed.jsonl"


@dataclass
class Fake:
    """A running fake server."""

    process: subprocess.Popen[str]
    url: str
    log: list[str] = field(default_factory=list)

    def until(self, text: str) -> list[str]:
        """All that it has logged, once a line with `text` has come or the log has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line.rstrip("\n"))
            if text in line:
                break
        return self.log

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=20)

    def complete(
        self, *, stream: bool = False, chat: bool = False, timeout: float = 20
    ) -> requests.Response:
        path = "/v1/chat/completions" if chat else "/v1/completions"
        asked = {"model": "model", "prompt": "Hello", "max_tokens": 4, "stream": stream}
        return requests.post(self.url + path, json=asked, stream=stream, timeout=timeout)

    def ended(self) -> int:
        return self.process.wait(20)


Start = Callable[..., Fake]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts fake servers with some switches; none outlives the test."""
    fakes: list[Fake] = []

    def run(**switches: object) -> Fake:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        told = {f"FAKE_{name.upper()}": str(value) for name, value in switches.items()}
        process = subprocess.Popen(
            [sys.executable, fake_server.__file__, "serve", "model"],
            env={**os.environ, "FAKE_PORT": str(port), "FAKE_DEADLINE": "60", **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        fakes.append(Fake(process, f"http://127.0.0.1:{port}"))
        return fakes[-1]

    yield run
    for fake in fakes:
        fake.process.kill()
        fake.process.wait()
        assert fake.process.stdout is not None
        fake.process.stdout.close()


@pytest.fixture
def ready(start: Start) -> Start:
    """As `start`, and returns when it listens."""

    def run(**switches: object) -> Fake:
        fake = start(**switches)
        assert any(fake_server.READY in line for line in fake.until(fake_server.READY)), fake.log
        return fake

    return run


def test_a_real_start_is_told_line_by_line_and_nothing_after_it(ready: Start) -> None:
    lines = [json.loads(text)["line"] for text in TIMED.read_text().splitlines()]
    end = next(number for number, line in enumerate(lines) if fake_server.READY in line)
    assert ready(log=TIMED, speed=10_000).log[:-1] == lines[:end]


def test_a_real_start_takes_its_own_time_divided_by_the_speed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    told = {"LOG": TIMED, "SPEED": 2, "LOAD": 5, "UNTIL": "Model loading took", "MODEL": "model"}
    for name, value in told.items():
        monkeypatch.setenv(f"FAKE_{name}", str(value))
    fake_server.Engine().load()
    saved = [json.loads(text) for text in TIMED.read_text().splitlines()]
    last = next(n for n, entry in enumerate(saved) if "Model loading took" in entry["line"]) - 1
    assert clock[0] == pytest.approx(saved[last]["t"] / 2 + 5)
    assert capfd.readouterr().out.splitlines()[-1] == saved[last]["line"]


def test_a_failed_start_is_told_and_ends_with_its_code(start: Start) -> None:
    fake = start(log=LOGS / "weights_missing.log", fault="exit-1")
    assert fake.ended() == 1
    assert "Cannot find any model weights" in "\n".join(fake.until("no such line"))
    assert not any(line.startswith("# ") for line in fake.log)


def test_a_mute_engine_has_failed_in_its_log_and_lives_on(start: Start) -> None:
    fake = start(fault="mute")
    diagnosis = LogDiagnosis()
    for line in fake.until("ValueError"):
        diagnosis.feed(line)
    assert diagnosis.final
    assert fake.process.poll() is None
    with pytest.raises(requests.ConnectionError):
        fake.get("/health")


def test_a_wedge_is_green_everywhere_but_in_its_next_completion(ready: Start) -> None:
    fake = ready(fault="wedge-1")
    assert fake.complete().status_code == 200
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{fake.url}/v1/completions", json={}, timeout=0.5)
    assert [fake.get(path).status_code for path in ("/health", "/v1/models", "/metrics")] == [
        200
    ] * 3


def test_the_metrics_show_a_request_that_makes_no_tokens(ready: Start) -> None:
    fake = ready(fault="wedge-1")
    fake.complete()
    with socket.create_connection(("127.0.0.1", int(fake.url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        while (
            'num_requests_running{engine="0",model_name="model"} 1' not in fake.get("/metrics").text
        ):
            pass
    assert 'generation_tokens_total{engine="0",model_name="model"} 4' in fake.get("/metrics").text


def test_a_dead_engine_is_green_then_fails_then_is_unhealthy_then_ends_with_0(ready: Start) -> None:
    fake = ready(fault="dead-engine-1", pace=60)
    stream = fake.complete(stream=True)
    assert fake.get("/health").status_code == 200
    failed = fake.complete()
    assert failed.status_code == 500
    assert "EngineCore encountered an issue" in failed.text
    assert stream.text == "data: [DONE]\n\n", "cut short, and as if all was well"
    assert fake.get("/v1/models").status_code == 200
    assert fake.get("/health").status_code == 503
    assert fake.ended() == 0


def test_a_death_after_the_first_answer_has_its_code(ready: Start) -> None:
    fake = ready(fault="die-after-answer-137")
    assert fake.complete().status_code == 200
    assert fake.ended() == 137


def test_half_a_stream_ends_in_an_error_and_not_as_if_it_were_whole(ready: Start) -> None:
    stream = ready(fault="half").complete(stream=True)
    with pytest.raises(requests.RequestException):
        stream.text  # noqa: B018  reading is what fails


def test_a_whole_stream_has_an_event_for_each_token(ready: Start) -> None:
    *events, done = filter(None, ready().complete(stream=True, chat=True).text.splitlines())
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert [delta["content"] for delta in deltas] == [" world"] * 4
    assert done == "data: [DONE]"


def test_the_key_is_wanted_where_vllm_wants_it(ready: Start) -> None:
    fake = ready(key="secret")
    assert [fake.get("/v1/models").status_code, fake.complete().status_code] == [401, 401]
    assert [fake.get("/health").status_code, fake.get("/metrics").status_code] == [200, 200]


@pytest.mark.parametrize(
    ("fault", "completion", "chat"),
    [
        ("pooling", 404, 404),
        ("pooling-400", 400, 400),
        ("chat-only", 404, 200),
        ("no-chat-template", 200, 400),
        ("status-503", 503, 503),
    ],
)
def test_what_the_model_cannot_do_is_refused_and_the_rest_done(
    ready: Start, fault: str, completion: int, chat: int
) -> None:
    fake = ready(fault=fault)
    answers = [fake.complete(), fake.complete(chat=True)]
    assert [answer.status_code for answer in answers] == [completion, chat]
    refusals = [answer.json() for answer in answers if answer.status_code == 404]
    assert all(refusal == {"detail": "Not Found"} for refusal in refusals)
    embeds = requests.post(f"{fake.url}/v1/embeddings", json={}, timeout=20).status_code
    assert embeds == (200 if "pooling" in fault else 404)


def test_sigterm_ends_an_idle_server_with_0_and_a_loading_one_with_1(
    start: Start, ready: Start
) -> None:
    serving = ready()
    serving.process.terminate()
    assert serving.ended() == 0
    loading = start(log=TIMED, speed=10)
    loading.until("version 0.26.0")
    loading.process.terminate()
    assert loading.ended() == 1


def test_a_swallowed_sigterm_wants_a_second_one(ready: Start) -> None:
    fake = ready(fault="sigterm-swallowed")
    fake.process.terminate()
    assert fake.get("/health").status_code == 200
    fake.process.send_signal(signal.SIGTERM)
    assert fake.ended() == 1


def test_sigterm_waits_for_open_streams_which_hear_nothing_more(ready: Start) -> None:
    fake = ready(fault="sigterm-waits", pace=60)
    stream = fake.complete(stream=True, timeout=3)
    fake.process.terminate()
    fake.until("Waiting for connections to close")
    with pytest.raises(requests.ConnectionError):
        fake.get("/health")
    assert fake.process.poll() is None
    with pytest.raises(requests.ConnectionError, match="timed out"):
        stream.text  # noqa: B018  reading is what fails, and hangs up
    assert fake.ended() == 0


def test_a_flood_of_lines_is_whole(ready: Start) -> None:
    log = ready(fault="noise-12345").log
    assert log[-2].endswith("line 12344")
    assert len(log) == 12346


def test_memory_is_never_taken_without_a_limit_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_server, "LIMITS", [])
    with pytest.raises(SystemExit, match="memory limit"):
        fake_server.take_memory()


def test_an_unknown_fault_is_named_with_those_that_exist(start: Start) -> None:
    for fault in ("hnag", "hang-3", "reset-two"):
        fake = start(fault=fault)
        assert fake.ended() == 1
        assert f"unknown FAKE_FAULT '{fault}'; known: " in fake.until("unknown")[0]


def test_none_outlives_its_deadline(ready: Start) -> None:
    assert ready(deadline=3).ended() == 3

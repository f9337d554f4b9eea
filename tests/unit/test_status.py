"""`vllm-spark status` and the drift of a preview: Docker and the server, asked and told apart."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import click
import pytest

from tests.cli import vllm_spark
from tests.fake_daemon import Container, FakeDaemon, hangs_up, refuses
from tests.unit.test_docker_drift import add_declared
from tests.unit.test_drift import CONFIG, settings
from vllm_spark.cli import servers, status
from vllm_spark.config.settings import Settings
from vllm_spark.gate.metrics import ServerMetrics
from vllm_spark.gate.probe import NotYet, Probe, Ready, Refused

State = dict[str, Any]


def resource(declared: Settings, server: str = "vllm", container: str = "vllm-spark") -> State:
    record = {
        "server": server,
        "containerName": container,
        "settings": declared.declared(),
        "variables": [],
    }
    return {"type": servers.RESOURCE, "outputs": {"__record": record}}


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> State:
    """The state of a stack with one server, for a test to change."""
    state: State = {"resources": [{"type": "other"}, resource(settings())]}
    monkeypatch.setattr(status, "require_pulumi", lambda: None)
    monkeypatch.setattr(servers, "read_state", lambda _stack: state)
    return state


@pytest.fixture
def server(daemon: FakeDaemon) -> Container:
    return add_declared(daemon, settings())


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the server says to the questions of a probe."""

    def say(listening: NotYet | Refused | None, answer: object = None) -> None:
        monkeypatch.setattr(Probe, "listening", lambda _probe: listening)
        monkeypatch.setattr(Probe, "answer", lambda _probe: answer)

    metrics = ServerMetrics(running=2, waiting=1, kv_used=0.25, kv_tokens=None)
    monkeypatch.setattr(status, "read_metrics", lambda _url: metrics)
    return say


def test_a_server_that_answers_is_yes_with_its_load(
    server: Container, says: Callable[..., None]
) -> None:
    says(None, Ready(0.25, 4))
    ran = vllm_spark("status", "--stack", "spark")
    assert ran.exit_code == 0
    container, serving, load, drift = ran.stdout.splitlines()
    started = server.inspected["State"]["StartedAt"][:19]
    about = f"vllm-spark: running since {started}Z, restarts 0, image {CONFIG['image']}"
    assert container == f"container  {about}"
    assert serving.startswith("serving    yes: Qwen/Qwen3-32B-FP8 answered in 0.25 s at http://127")
    assert load == "load       2 running, 1 waiting, KV cache 25% used"
    assert drift == "drift      none: what runs is as declared"


def test_metrics_that_are_not_there_leave_the_load_unknown(
    server: Container, says: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    says(None, Ready(0.25, 4))
    monkeypatch.setattr(status, "read_metrics", lambda _url: None)
    assert "load       unknown: /metrics does not answer" in vllm_spark("status").stdout
    strange = ServerMetrics(running=None, waiting=None, kv_used=None, kv_tokens=None)
    monkeypatch.setattr(status, "read_metrics", lambda _url: strange)
    assert "does not have the names that vLLM gives" in vllm_spark("status").stdout


@pytest.mark.parametrize(
    ("listening", "answer", "said"),
    [
        (NotYet("the port does not answer yet"), None, "not yet: the port does not answer yet"),
        (None, Refused("it hangs", "restart it", ("500 no",)), "no: it hangs\n  fix: restart it"),
    ],
)
def test_a_server_that_does_not_answer_is_no_success(
    listening: Any, answer: Any, said: str, server: Container, says: Callable[..., None]
) -> None:
    says(listening, answer)
    ran = vllm_spark("status")
    assert ran.exit_code == 1
    assert f"serving    {said}" in ran.stdout
    if answer is not None:
        assert "  | 500 no" in ran.stdout


def test_a_container_that_has_ended_is_told_with_how(server: Container) -> None:
    server.exits(1, error="no such device")
    ran = vllm_spark("status")
    assert ran.exit_code == 1
    assert "serving    no: exit code 1 no such device" in ran.stdout
    assert "drift      state: exited, exit code 1" in ran.stdout


def test_a_container_that_docker_could_not_start_is_told_with_docker_s_reason(
    server: Container,
) -> None:
    server.exits(128, error="OCI runtime create failed: error setting rlimit type 8: not permitted")
    server.inspected["State"].update(Status="created", StartedAt="0001-01-01T00:00:00Z")
    said = vllm_spark("status").stdout
    assert "container  vllm-spark: created, never started, restarts 0" in said
    assert "fix: lower or remove container.ulimits" in said
    assert "last end   the host does not let the container have its ulimits" in said


def test_a_paused_container_does_not_serve_and_is_told_with_the_fix(server: Container) -> None:
    server.inspected["State"].update(Status="paused", Paused=True)
    ran = vllm_spark("status")
    assert ran.exit_code == 1
    assert "serving    no: it is paused" in ran.stdout
    assert "fix: docker unpause vllm-spark" in ran.stdout


def test_a_container_that_is_gone_is_told_with_the_fix(daemon: FakeDaemon) -> None:
    ran = vllm_spark("status", "--stack", "spark")
    assert ran.exit_code == 1
    assert ran.stdout.splitlines() == [
        "container  none",
        "serving    no: there is no container vllm-spark",
        "  fix: make up STACK=spark",
    ]


def test_a_stack_that_is_not_up_is_told(state: State, daemon: FakeDaemon) -> None:
    state.clear()
    ran = vllm_spark("status", "--stack", "spark")
    assert ran.exit_code == 1
    assert ran.stdout == "stack spark is not up\n  fix: make up STACK=spark\n"


def test_with_drift_the_exit_code_tells_whether_what_runs_is_as_declared(
    server: Container, says: Callable[..., None]
) -> None:
    says(NotYet("it still loads"))
    assert vllm_spark("status").exit_code == 1
    assert vllm_spark("status", "--drift").exit_code == 0
    server.inspected["HostConfig"]["IpcMode"] = "private"
    ran = vllm_spark("status", "--drift", "--json")
    assert ran.exit_code == 1
    (told,) = json.loads(ran.stdout)["servers"]
    assert told["drift"] == ["ipc: runs with private, declared host"]


def test_a_container_that_is_gone_has_drifted(daemon: FakeDaemon) -> None:
    ran = vllm_spark("status", "--drift", "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["servers"][0]["drift"] == ["container: gone, declared"]


def test_a_server_in_a_state_from_before_the_records_is_known(
    state: State, server: Container
) -> None:
    (preflight,) = state["resources"][1:]
    preflight["outputs"] = preflight["outputs"]["__record"]
    (known,) = servers.servers_of("spark")
    assert (known.name, known.container) == ("vllm", server.name)


def test_drift_of_nothing_deployed_or_without_docker_is_not_known(
    state: State, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    assert vllm_spark("status", "--drift").exit_code == 2
    state["resources"].clear()
    assert vllm_spark("status", "--drift").exit_code == 2


def test_a_docker_that_cannot_be_asked_is_neither_yes_nor_no(
    daemon: FakeDaemon, server: Container
) -> None:
    daemon.fault("GET /containers", hangs_up)
    ran = vllm_spark("status")
    assert ran.exit_code == 2
    assert ran.stdout == ""
    daemon.heal()
    daemon.fault("GET /containers", refuses(500, "database is locked"))
    ran = vllm_spark("status")
    assert ran.exit_code == 2
    assert "error: the Docker daemon refuses: database is locked" in ran.stderr


def test_json_holds_each_server(
    state: State, daemon: FakeDaemon, server: Container, says: Callable[..., None]
) -> None:
    says(None, Ready(0.25, 4))
    state["resources"].append(resource(settings(), "second", "vllm-second"))
    ran = vllm_spark("status", "--stack", "spark", "--json")
    assert ran.exit_code == 1
    told = json.loads(ran.stdout)
    assert told["stack"] == "spark"
    assert [(one["server"], one["serving"]) for one in told["servers"]] == [
        ("vllm", "yes"),
        ("second", "no"),
    ]


def test_one_server_of_several_can_be_asked_about(
    state: State, daemon: FakeDaemon, server: Container, says: Callable[..., None]
) -> None:
    says(None, Ready(0.25, 4))
    state["resources"].append(resource(settings(), "second", "vllm-second"))
    assert vllm_spark("status", "--server", "vllm").exit_code == 0
    everything = vllm_spark("status").stdout
    assert "server     vllm\ncontainer  vllm-spark" in everything
    assert "server     second\ncontainer  none" in everything
    ran = vllm_spark("status", "--server", "third")
    assert ran.exit_code == 2
    assert "there is no server third; its servers are: second, vllm" in ran.stderr


def test_where_there_are_several_and_one_is_meant_they_are_listed(state: State) -> None:
    state["resources"].append(resource(settings(), "second", "vllm-second"))
    with pytest.raises(click.UsageError, match="give --server; its servers are: second, vllm"):
        servers.one_server("spark", None)
    second = servers.one_server("spark", "second")
    assert second is not None
    assert second.container == "vllm-second"


def test_where_nothing_is_deployed_there_is_no_server(state: State) -> None:
    state.clear()
    assert servers.one_server("spark", None) is None
    assert servers.servers_of("spark", None) == []


@pytest.fixture
def wants_key() -> Iterator[tuple[int, list[str | None]]]:
    """A server's port, and the keys that it was shown."""
    shown: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield http.server_port, shown
        http.shutdown()


def test_the_key_is_read_from_the_container_so_that_no_passphrase_is_needed(
    state: State, daemon: FakeDaemon, wants_key: tuple[int, list[str | None]]
) -> None:
    port, shown = wants_key
    declared = settings(endpoint={"port": port})
    state["resources"] = [resource(declared)]
    add_declared(daemon, declared).inspected["Config"]["Env"].append("VLLM_API_KEY=of-ours")
    ran = vllm_spark("status")
    assert "Bearer of-ours" in shown
    assert "of-ours" not in ran.output


# What a preview says of drift


def test_a_preview_names_each_difference(
    state: State, server: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    state["resources"] = [
        resource(settings(endpoint={"port": 9000})),
        resource(settings(), "second", "vllm-second"),
    ]
    status.show_drift("spark")
    assert capsys.readouterr().out.splitlines() == [
        "drift      port: runs with 127.0.0.1:8000, declared 127.0.0.1:9000",
        "drift      container vllm-second is gone",
    ]


def test_a_preview_without_docker_says_that_drift_is_unknown(
    daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon.goes_away()
    status.show_drift("spark")
    assert capsys.readouterr().out.startswith("drift      unknown: no Docker daemon answers at")


def test_a_port_that_nobody_listens_on_is_not_yet(state: State, daemon: FakeDaemon) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    declared = settings(endpoint={"port": port})
    state["resources"] = [resource(declared)]
    add_declared(daemon, declared)
    assert "serving    not yet: the port does not answer yet" in vllm_spark("status").stdout

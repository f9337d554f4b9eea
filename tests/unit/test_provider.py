"""The dynamic providers, and what their process makes of errors, Cancel and a Pulumi that ends."""

from __future__ import annotations

import os
import socket
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from components import health_gate, provider
from components.health_gate import HealthGateProvider
from components.identity import ReleaseProvider, StateIdProvider
from components.preflight import PreflightProvider
from tests.e2e.gate_process import GateProcess
from tests.fake_daemon import Container, FakeDaemon
from tests.unit.test_docker_drift import add_declared
from tests.unit.test_drift import settings
from vllm_spark import __version__
from vllm_spark.deployment.records import RECORD
from vllm_spark.docker_host import preflight
from vllm_spark.docker_host.interruption import interrupted
from vllm_spark.docker_host.wait_for_answer import Answered
from vllm_spark.errors import GateError
from vllm_spark.images import Version

# The process that hosts a provider


class Servicer:
    """Stands in for the class of Pulumi's host."""

    def Cancel(self, _request: Any, _context: Any) -> Any:
        return "the host's own"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """This process as the host of a provider."""
    module: Any = types.ModuleType("__main__")
    module.DynamicResourceProviderServicer = Servicer
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(sys, "argv", ["pulumi.dynamic"])
    # Whatever it does to this process's signals, pytest keeps its own.
    signals: list[tuple[int, int]] = []
    library = types.SimpleNamespace(signal=lambda *given: signals.append(given))
    monkeypatch.setattr(provider.ctypes, "CDLL", lambda _name: library)  # type: ignore[attr-defined]
    module.signals = signals
    before = Servicer.Cancel.__code__
    provider.Provider().configure(types.SimpleNamespace())  # type: ignore[arg-type]
    yield module
    Servicer.Cancel.__code__ = before
    interrupted.clear()


def test_an_error_of_ours_reaches_a_person_without_a_traceback(host: Any) -> None:
    try:
        raise GateError("vllm-spark does not serve")
    except GateError:
        assert host.traceback.format_exc() == "vllm-spark does not serve"
    try:
        raise RuntimeError("a fault of this project")
    except RuntimeError:
        assert host.traceback.format_exc().startswith("Traceback")


def test_a_cancel_ends_what_waits(host: Any) -> None:
    assert not interrupted.is_set()
    assert str(Servicer().Cancel(None, None)) == ""
    assert interrupted.is_set()


def test_the_process_is_prepared_once(host: Any) -> None:
    provider.Provider().configure(types.SimpleNamespace())  # type: ignore[arg-type]
    assert len(host.signals) == 1


def test_a_process_that_hosts_no_provider_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    provider.Provider().configure(types.SimpleNamespace())  # type: ignore[arg-type]
    assert not hasattr(module, "traceback")


def test_a_provider_ends_with_its_engine(
    monkeypatch: pytest.MonkeyPatch, ctrl_c: Callable[[], None]
) -> None:
    class Ended(Exception):
        pass

    looks: list[str] = []

    def look(address: tuple[str, int], timeout: float) -> socket.socket:
        looks.append(f"{address[0]}:{address[1]}")
        if len(looks) == 1:
            return socket.socket()
        raise TimeoutError if len(looks) == 2 else ConnectionRefusedError

    def end(code: int) -> None:
        assert code == 1
        assert interrupted.is_set(), "what runs has been asked to end"
        raise Ended

    monkeypatch.setattr(provider, "ENGINE_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(provider, "GRACE_SECONDS", 0)
    monkeypatch.setattr("socket.create_connection", look)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended):
        provider._watch("127.0.0.1", 4711)
    assert looks == ["127.0.0.1:4711"] * 3, "an engine that is slow is no engine that is gone"


def test_the_engines_address_is_the_last_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Any] = []

    class Thread:
        def __init__(self, **given: Any) -> None:
            watched.append(given["args"])

        def start(self) -> None:
            pass

    monkeypatch.setattr(provider.threading, "Thread", Thread)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "argv", ["pulumi.dynamic", "127.0.0.1:4711"])
    provider._end_with_the_engine()
    monkeypatch.setattr(sys, "argv", ["pulumi.dynamic"])
    provider._end_with_the_engine()
    assert watched == [("127.0.0.1", 4711)]


def test_over_pulumis_own_protocol_an_error_is_words_alone(daemon: FakeDaemon) -> None:
    def process(container: Container) -> None:
        container.prints("no such thing\n")
        container.exits(1)

    daemon.when_started = process
    container = daemon.add("vllm-spark", running=False)
    container.exits(1)
    with GateProcess() as gate, pytest.raises(grpc.RpcError) as failed:
        gate.create(gate_properties(container.id))
    said = failed.value.details()
    assert said.startswith("vllm-spark does not serve\n  cause: ")
    assert "Traceback" not in said


# The health gate


def gate_properties(container_id: str) -> dict[str, Any]:
    record = {
        "containerId": container_id,
        "containerName": "vllm-spark",
        "url": "http://127.0.0.1:9/v1",
        "model": "model",
        "timeoutSeconds": "60",
        "stallSeconds": "60",
    }
    return {RECORD: record, "question": f"about {container_id}"}


def test_an_answer_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = Answered("first start", 70.1, 0.05, 4, {"kvTokens": 5})
    monkeypatch.setattr(health_gate, "wait_for_answer", lambda *_, **__: answered)
    gate = HealthGateProvider()
    created = gate.create(gate_properties("4567"))
    assert created.outs is not None
    assert created.outs["startedAt"] == "first start"
    assert created.outs["healthy"]
    assert created.outs["memoryActual"] == {"kvTokens": 5}
    updated = gate.update("gate-1", {}, gate_properties("4567"))
    assert updated.outs == created.outs


def test_a_refresh_asks_whether_the_start_that_answered_still_runs(daemon: FakeDaemon) -> None:
    container = daemon.add("vllm-spark")
    state = {
        **gate_properties(container.id),
        "startedAt": container.inspected["State"]["StartedAt"],
    }
    gate = HealthGateProvider()
    assert gate.read("gate-1", state).outs == {**state, "healthy": True}
    container.exits(0)
    container.starts()
    outs = gate.read("gate-1", state).outs
    assert outs is not None
    assert not outs["healthy"]


def flat(properties: dict[str, Any]) -> dict[str, Any]:
    """The properties as vllm-spark wrote them into a state before it had a record."""
    return {**{key: properties[key] for key in properties if key != RECORD}, **properties[RECORD]}


def test_a_refresh_asks_of_a_gate_in_a_state_from_before_the_records(daemon: FakeDaemon) -> None:
    container = daemon.add("vllm-spark")
    state = {
        **flat(gate_properties(container.id)),
        "startedAt": container.inspected["State"]["StartedAt"],
    }
    assert HealthGateProvider().read("gate-1", state).outs == {**state, "healthy": True}


def test_only_a_question_that_changed_or_an_answer_that_is_no_longer_true_is_asked_again() -> None:
    olds = {**gate_properties("4567"), "healthy": True}
    news = gate_properties("4567")
    gate = HealthGateProvider()
    assert not gate.diff("gate-1", olds, news).changes
    longer = {**news, RECORD: {**news[RECORD], "timeoutSeconds": "5"}}
    assert not gate.diff("gate-1", olds, longer).changes
    assert gate.diff("gate-1", olds, gate_properties("89")).changes
    assert gate.diff("gate-1", olds, {**news, "apiKey": "another"}).changes
    assert gate.diff("gate-1", {**olds, "healthy": False}, news).changes


# The preflight


def preflight_properties(**keys: Any) -> dict[str, Any]:
    identity = {"project": "p", "stack": "s", "server": "vllm", "state_id": "0123456789ab"}
    record = {
        "server": "vllm",
        "containerName": "vllm-spark",
        "identity": identity,
        "imageId": "sha256:1",
        "settings": settings(**keys).declared(),
        "variables": [],
    }
    return {RECORD: record, "declaration": "1"}


def test_a_preflight_that_passed_notes_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[str] = []

    def run(checks: preflight.Preflight) -> preflight.Passed:
        known.append(checks.accepted)
        return preflight.Passed("the key", Version.parse("0.29.0"))

    monkeypatch.setattr(preflight.Preflight, "run", run)
    checks = PreflightProvider()
    created = checks.create(preflight_properties())
    assert created.outs is not None
    assert (created.outs["passed"], created.outs["flagsAccepted"]) == (True, "the key")
    assert created.outs["vllmVersion"] == "0.29.0"
    checks.update("preflight-1", created.outs, preflight_properties())
    assert known == ["", "the key"]


def test_a_refresh_asks_of_a_preflight_in_a_state_from_before_the_records(
    daemon: FakeDaemon,
) -> None:
    state = flat(preflight_properties())
    outs = PreflightProvider().read("preflight-1", state).outs
    assert outs == {**state, "passed": False}, "no container is there"
    assert PreflightProvider().diff("preflight-1", outs, preflight_properties()).changes


def test_a_server_that_stays_stopped_is_not_checked(daemon: FakeDaemon) -> None:
    outs = PreflightProvider().create(preflight_properties(state="stopped")).outs
    assert outs is not None
    assert outs["passed"]
    assert not daemon.asked


def test_another_declaration_or_one_that_did_not_pass_is_checked() -> None:
    checks = PreflightProvider()
    olds = {**preflight_properties(), "passed": True}
    assert not checks.diff("preflight-1", olds, preflight_properties()).changes
    other = {**preflight_properties(), "declaration": "2"}
    assert checks.diff("preflight-1", olds, other).changes
    assert checks.diff("preflight-1", {**olds, "passed": False}, preflight_properties()).changes


def test_a_refresh_asks_whether_what_passed_still_runs(daemon: FakeDaemon) -> None:
    container = add_declared(daemon, settings())
    checks = PreflightProvider()
    outs = checks.read("preflight-1", preflight_properties()).outs
    assert outs is not None
    assert outs["passed"]
    container.exits(1)
    outs = checks.read("preflight-1", preflight_properties()).outs
    assert outs is not None
    assert not outs["passed"]


# Whose a container is, and which release made it


def test_a_states_id_is_chosen_once_and_at_random() -> None:
    first, second = StateIdProvider().create({}), StateIdProvider().create({})
    assert first.outs is not None
    assert second.outs is not None
    assert len(first.outs["value"]) == 12
    assert first.outs["value"] != second.outs["value"]
    assert not StateIdProvider().diff("id", first.outs, {"value": None}).changes


def test_the_release_on_the_label_changes_with_the_container_alone() -> None:
    release = ReleaseProvider()
    created = release.create({"container": "1", "version": None}).outs
    assert created == {"container": "1", "version": __version__}
    old = {"container": "1", "version": "0.0.1"}
    assert not release.diff("release", old, {"container": "1", "version": None}).changes
    assert release.diff("release", old, {"container": "2", "version": None}).changes
    assert release.update("release", old, {"container": "2"}).outs == {
        "container": "2",
        "version": __version__,
    }

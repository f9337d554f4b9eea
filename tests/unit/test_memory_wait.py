"""The wait between two servers: until the memory of the old one has come back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fake_daemon import Container, FakeDaemon, refuses
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.host_memory import Meminfo
from vllm_spark.deployment.tenants import Identity
from vllm_spark.docker_host import memory_wait
from vllm_spark.errors import DockerRefused, DockerUnavailable, PreflightError

SPARK: dict[str, Any] = {
    "model": {"id": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"},
    "image": {"name": "nvcr.io/nvidia/vllm:25.09-py3"},
    "cache": {"volume": "weights"},
    "engine": {"max-model-len": 32768, "gpu-memory-utilization": 0.85},
}


def wait(monkeypatch: pytest.MonkeyPatch, available: Iterator[float], **keys: Any) -> None:
    """Run the wait on a host whose available GiB are these, one after the other."""

    class Host:
        def __init__(self, *_: str) -> None:
            pass

        def memory(self) -> Meminfo:
            return Meminfo(total_gib=121.69, available_gib=next(available), free_gib=5.0)

    monkeypatch.setattr(memory_wait, "DockerHost", Host)
    monkeypatch.setattr(memory_wait, "PAUSE_SECONDS", 0)
    settings = Settings.parse({**SPARK, **keys}, frozenset())
    memory_wait._wait_for_memory("vllm-spark", settings, print)


def test_the_new_server_waits_until_the_memory_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    available = iter([10.0, 60.0, 110.0, 1.0])
    wait(monkeypatch, available)
    assert next(available) == 1.0, "asked until there was enough, and no longer"


def test_memory_that_does_not_come_back_is_said_with_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_wait, "WAIT_SECONDS", 0)
    with pytest.raises(PreflightError, match=r"needs 103\.4 GiB; 10\.0 of the host's 121\.7"):
        wait(monkeypatch, iter([10.0] * 10))


def test_a_misfit_that_is_allowed_is_waited_for_and_then_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_wait, "SETTLED_SECONDS", 0)
    available = iter([10.0, 20.0, 30.0, 30.0, 1.0])
    wait(monkeypatch, available, host={"allowMisfit": True})
    assert next(available) == 1.0, "for as long as memory came back, and no longer"


def test_a_wait_that_goes_on_is_told_with_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_wait, "PROGRESS_SECONDS", 0)
    wait(monkeypatch, iter([10.0, 60.0, 110.0]))
    told = capsys.readouterr().out.splitlines()
    assert all(line.startswith("waiting for memory, ") for line in told[:2])
    assert [line.partition(" of 120 s: ")[2] for line in told[:2]] == [
        "the server needs 103.4 GiB; 10.0 of the host's 121.7 are available",
        "the server needs 103.4 GiB; 60.0 of the host's 121.7 are available",
    ]


def test_page_cache_that_an_old_vllm_may_take_for_used_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wait(monkeypatch, iter([110.0]))
    assert "are page cache, which vLLM 0.10.1.1 may take for used" in capsys.readouterr().out


# Through a daemon, from the name to the memory

US = Identity("project", "spark", "vllm", "0123456789ab")
SetAvailable = Callable[[float], None]


def make(**keys: Any) -> list[str]:
    """What `make_room` tells."""
    told: list[str] = []
    settings = Settings.parse({**SPARK, **keys}, frozenset())
    memory_wait.make_room("vllm-spark", US, settings, told.append)
    return told


def test_a_name_that_is_free_needs_nothing(daemon: FakeDaemon, available: SetAvailable) -> None:
    assert not any("removing" in line for line in make())
    assert not any(asked.startswith(("POST", "DELETE")) for asked in daemon.asked)


def test_what_an_interrupted_run_has_left_is_removed(
    daemon: FakeDaemon, available: SetAvailable
) -> None:
    daemon.add("vllm-spark", Labels=US.labels, running=False)
    told = make()
    assert told[0] == "removing what an interrupted run has left under this name"
    assert daemon.containers == {}


def test_a_container_that_runs_is_never_removed_though_it_is_ours(
    daemon: FakeDaemon, available: SetAvailable
) -> None:
    lost = daemon.add("vllm-spark", Labels=US.labels)
    with pytest.raises(PreflightError, match="runs, and the state of this stack has lost it") as e:
        make()
    assert "fix: docker rm --force vllm-spark, then repeat" in str(e.value)
    assert lost.running


@pytest.mark.parametrize("running", [True, False])
def test_a_container_of_somebody_else_is_never_removed(
    running: bool, daemon: FakeDaemon, available: SetAvailable
) -> None:
    other = Identity(US.project, US.stack, US.server, "another state")
    theirs = daemon.add("vllm-spark", Labels=other.labels, running=running)
    with pytest.raises(PreflightError, match="the state of this stack does not know it"):
        make()
    assert daemon.find(theirs.id) is theirs


def test_a_removal_that_docker_refuses_is_said(daemon: FakeDaemon, available: SetAvailable) -> None:
    daemon.add("vllm-spark", Labels=US.labels, running=False)
    daemon.fault("DELETE", refuses(500, "driver failed to remove root filesystem"))
    with pytest.raises(DockerRefused, match="driver failed to remove root filesystem"):
        make()


def test_the_memory_of_the_daemons_host_is_waited_for(
    daemon: FakeDaemon, available: SetAvailable, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(10.0)
    monkeypatch.setattr(memory_wait, "WAIT_SECONDS", 0)
    with pytest.raises(PreflightError, match=r"did not come back within 0 s\n.*10\.0 of the host"):
        make()


def test_a_server_that_stays_stopped_needs_no_memory(
    daemon: FakeDaemon, available: SetAvailable
) -> None:
    available(10.0)
    assert make(state="stopped") == []


@pytest.mark.parametrize("code", [0, 1])
def test_memory_that_nobody_can_tell_is_not_waited_for(
    code: int, daemon: FakeDaemon, available: SetAvailable
) -> None:
    daemon.info["MemTotal"] = 1

    def process(container: Container) -> None:
        container.prints("no such thing\n")
        container.exits(code)

    daemon.when_started = process
    daemon.add_image(SPARK["image"]["name"])
    assert make() == []
    assert make(container={"gpus": "none"}, engine={}) == [], "and neither is an unknown need"


def test_the_memory_of_a_gpu_that_has_its_own_is_waited_for(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([30000, 60000])

    def process(container: Container) -> None:
        row = f"0, GPU-2, NVIDIA H100 80GB HBM3, 9.0, 81559, {next(free)}"
        answer = {"flags": None, "said": "", "gpus": [row], "trouble": "", "holders": None}
        answer |= {"version": None, "prebuilt": []}
        container.prints(json.dumps(answer))
        container.exits(0)

    daemon.when_started = process
    daemon.add_image(SPARK["image"]["name"])
    monkeypatch.setattr(memory_wait, "PROGRESS_SECONDS", 0)
    engine = {**SPARK["engine"], "gpu-memory-utilization": 0.6}
    (line,) = make(host={"memoryGiB": 79.18, "unified": False}, engine=engine)
    assert "the server needs 47.8 GiB; 29.3 of 79.6 are free" in line
    assert next(free, None) is None, "asked until there was enough"


def test_a_daemon_that_goes_away_meanwhile_is_said(daemon: FakeDaemon) -> None:
    daemon.goes_away()
    with pytest.raises(DockerUnavailable):
        make()

"""What the daemon's host says of itself: its memory, its containers on the GPU, its ports."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from tests.fake_daemon import GPU, IMAGE, Container, FakeDaemon, refuses
from vllm_spark.config.sections import Endpoint
from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import Gpu
from vllm_spark.deployment.tenants import CHECK_LABEL, Identity, tenant
from vllm_spark.docker_host import host as host_module
from vllm_spark.docker_host.host import DockerHost
from vllm_spark.memory.limits import GIB
from vllm_spark.problems import Unmodelled

NAME = "vllm-spark"
US = Identity("project", "spark", "vllm", "0123456789ab")
VLLM = ["--model", "Qwen/Qwen3-32B-FP8", "--gpu-memory-utilization", "0.5"]
ON_GPU: dict[str, Any] = {"image": "vllm/vllm-openai:v0.32.0", "host": {"DeviceRequests": [GPU]}}
ONCE: dict[str, Any] = {"RestartPolicy": {"Name": "no"}, "PortBindings": {}}
SHELL: dict[str, Any] = {"Entrypoint": [], "Cmd": ["bash"]}
"""With ONCE: a container that does not look like a server."""

SetAvailable = Callable[[float], None]


def settings(**keys: Any) -> Settings:
    config = {
        "model": "Qwen/Qwen3-32B-FP8",
        "image": "nvcr.io/nvidia/vllm:25.09-py3",
        "cache": {"volume": "weights"},
        **keys,
    }
    return Settings.parse(config, frozenset())


def host() -> DockerHost:
    return DockerHost(NAME, IMAGE)


# Memory


def test_the_memory_of_this_machine_is_read_here(
    daemon: FakeDaemon, available: SetAvailable
) -> None:
    available(80.0)
    memory = host().memory()
    assert (round(memory.total_gib, 2), round(memory.available_gib, 2)) == (121.69, 80.0)
    assert not any("create" in asked for asked in daemon.asked)


@pytest.mark.parametrize("elsewhere", ["another size", "no Linux here"])
def test_the_memory_of_another_machine_is_read_in_a_container_there(
    elsewhere: str, daemon: FakeDaemon, available: SetAvailable, monkeypatch: pytest.MonkeyPatch
) -> None:
    if elsewhere == "another size":
        daemon.info["MemTotal"] = 64 * GIB
    else:
        monkeypatch.setattr(host_module, "MEMINFO", Path("/nowhere"))

    def process(container: Container) -> None:
        config = container.inspected["Config"]
        assert "/proc/meminfo" in config["Cmd"][1]
        container.prints("MemTotal: 67108864 kB\nMemFree: 1048576 kB\nMemAvailable: 2097152 kB\n")
        container.exits(0)

    daemon.when_started = process
    memory = host().memory()
    assert (memory.total_gib, memory.available_gib, memory.free_gib) == (64.0, 2.0, 1.0)
    assert daemon.containers == {}, "the container is removed"


def test_what_is_no_meminfo_is_no_memory(daemon: FakeDaemon, available: SetAvailable) -> None:
    daemon.info["MemTotal"] = 64 * GIB

    def process(container: Container) -> None:
        container.prints("nothing of the kind\n")
        container.exits(0)

    daemon.when_started = process
    with pytest.raises(ValueError, match="no MemTotal"):
        host().memory()


# Who is on the GPU


def names(tenants: list[Any]) -> list[str]:
    return [one.name for one in tenants]


def test_whoever_was_given_the_gpu_and_runs_is_on_it(daemon: FakeDaemon) -> None:
    daemon.add("other", **ON_GPU)
    daemon.add("ended", **ON_GPU).exits(0)
    daemon.add("without")
    daemon.add("check", Labels={CHECK_LABEL: "yes"}, **ON_GPU)
    daemon.add(NAME, **ON_GPU)  # of our name, whoever made it: it will go, or be a problem itself
    assert names(host().tenants(settings(), US)) == ["other"]


def test_who_may_be_there_is_no_tenant(daemon: FakeDaemon) -> None:
    daemon.add("friend", **ON_GPU)
    daemon.add("other", **ON_GPU)
    assert names(host().tenants(settings(gpu={"alongside": ["friend"]}), US)) == ["other"]


def test_the_servers_of_one_program_are_no_tenants_of_each_other(daemon: FakeDaemon) -> None:
    sibling = Identity(US.project, US.stack, "second", US.state_id)
    namesake = Identity(US.project, US.stack, "second", "another state")
    daemon.add("sibling", Labels=sibling.labels, **ON_GPU)
    daemon.add("namesake", Labels=namesake.labels, **ON_GPU)
    assert names(host().tenants(settings(), US)) == ["namesake"]


def test_a_server_without_a_gpu_has_no_tenants(daemon: FakeDaemon) -> None:
    daemon.add("other", **ON_GPU)
    assert host().tenants(settings(container={"gpus": "none"}), US) == []


def test_a_container_on_another_gpu_is_no_tenant(daemon: FakeDaemon) -> None:
    first, second = (
        Gpu(index, f"GPU-{index}{index}", "NVIDIA H100", "9.0", 79.18, 79.0) for index in "01"
    )
    for name, given in (("by-index", "1"), ("by-uuid", second.uuid), ("ours", first.uuid)):
        daemon.add(name, host={"DeviceRequests": [{**GPU, "Count": 0, "DeviceIDs": [given]}]})
    on_the_first = settings(container={"gpus": [0]})
    assert names(host().tenants(on_the_first, US, [first, second])) == ["ours"]
    cannot_tell = names(host().tenants(on_the_first, US))
    assert cannot_tell == ["by-uuid", "ours"], "a UUID that nobody resolves may be our GPU"


@pytest.mark.parametrize(
    ("holders", "there"),
    [
        (frozenset({4711}), True),
        (frozenset({815}), False),
        (frozenset(), False),
        (None, True),
    ],
    ids=["holds it", "another does", "nobody does", "unknown"],
)
def test_what_looks_like_no_server_is_a_tenant_while_it_holds_the_gpu(
    holders: frozenset[int] | None, there: bool, daemon: FakeDaemon
) -> None:
    shell = daemon.add("shell", host={"DeviceRequests": [GPU], **ONCE}, **SHELL)
    shell.processes = [42, 4711]
    found = names(host().tenants(settings(), US, holders=holders))
    assert found == (["shell"] if there else [])


def test_a_server_is_a_tenant_before_it_holds_the_gpu(daemon: FakeDaemon) -> None:
    daemon.add("starting", **ON_GPU)
    assert names(host().tenants(settings(), US, holders=frozenset())) == ["starting"]


def test_processes_that_docker_does_not_list_may_be_on_the_gpu(daemon: FakeDaemon) -> None:
    daemon.add("shell", host={"DeviceRequests": [GPU], **ONCE}, **SHELL)
    daemon.fault("/top", refuses(500, "ps: command not found"))
    assert names(host().tenants(settings(), US, holders=frozenset())) == ["shell"]


def test_a_container_that_ends_while_it_is_asked_about_is_left_out(daemon: FakeDaemon) -> None:
    gone = daemon.add("gone", **ON_GPU)
    daemon.fault(f"GET /containers/{gone.id}/json", refuses(404, "No such container"))
    assert host().tenants(settings(), US) == []


def test_a_daemon_that_cannot_inspect_a_container_is_not_taken_for_an_empty_host(
    daemon: FakeDaemon,
) -> None:
    other = daemon.add("other", **ON_GPU)
    daemon.fault(f"GET /containers/{other.id}/json", refuses(500, "layer not known"))
    asked = host()
    with pytest.raises(APIError, match="layer not known"):
        asked.tenants(settings(), US)
    with pytest.raises(APIError, match="layer not known"):
        asked.returned(settings(), [tenant(other.inspected)])


# What comes back


def test_a_vllm_gives_back_the_share_that_it_was_told_to_take(daemon: FakeDaemon) -> None:
    daemon.add(NAME, Cmd=VLLM, **ON_GPU)
    other = daemon.add("other", Cmd=VLLM[:2], **ON_GPU)
    stopped = [tenant(other.inspected)]
    back = host().returned(settings(), stopped)
    assert back[NAME] == pytest.approx(0.5 * 121.69)
    assert back["other"] == pytest.approx(0.9 * 121.69), "the default of this release"
    assert host().returned(settings(), []).keys() == {NAME}, "others stay"


def test_a_server_that_does_not_run_gives_nothing_back(daemon: FakeDaemon) -> None:
    daemon.add(NAME, Cmd=VLLM, **ON_GPU).exits(0)
    assert host().returned(settings(), []) == {}


def test_what_another_program_holds_on_the_gpu_is_not_known(daemon: FakeDaemon) -> None:
    other = daemon.add("other", Cmd=["train.py"], Entrypoint=["python3"], **ON_GPU)
    back = host().returned(settings(), [tenant(other.inspected)])
    assert back == {"other": Unmodelled("it is no vLLM")}


@pytest.mark.parametrize(
    ("stats", "cached"),
    [
        ({"total_inactive_file": 3 * GIB, "inactive_file": 1 * GIB}, 3),
        ({"inactive_file": 2 * GIB}, 2),
        ({}, 0),
    ],
    ids=["cgroup 1", "cgroup 2", "neither"],
)
def test_a_server_on_the_cpu_gives_back_what_docker_counts_less_page_cache(
    stats: dict[str, int], cached: float, daemon: FakeDaemon
) -> None:
    old = daemon.add(NAME)
    old.stats["memory_stats"] = {"usage": 10 * GIB, "stats": stats}
    assert host().returned(settings(), []) == {NAME: 10.0 - cached}


def test_memory_that_docker_does_not_tell_is_not_known(daemon: FakeDaemon) -> None:
    daemon.add(NAME)
    daemon.fault("/stats", refuses(500, "cgroup deleted"))
    held = host().returned(settings(), [])[NAME]
    assert isinstance(held, Unmodelled)
    assert "cgroup deleted" in held.reason


# Ports


def publishing(port: int, address: str = "127.0.0.1") -> dict[str, Any]:
    bound = {"8000/tcp": [{"HostIp": address, "HostPort": str(port)}]}
    return {"host": {"PortBindings": bound}}


def test_a_free_port_is_no_problem(daemon: FakeDaemon, available: SetAvailable, port: int) -> None:
    daemon.add("other", **publishing(port + 1))
    assert host().port_problem(Endpoint(port=port), []) is None


def test_a_port_of_another_container_is_named_with_it(
    daemon: FakeDaemon, available: SetAvailable, port: int
) -> None:
    daemon.add("other", **publishing(port))
    problem = host().port_problem(Endpoint(port=port), [])
    assert problem is not None
    assert f"port {port} on 127.0.0.1: is held by container other ({IMAGE})" in str(problem)
    assert problem.fix.startswith("docker stop other, or use another port: ")


def test_a_port_of_who_leaves_is_free(
    daemon: FakeDaemon, available: SetAvailable, held_port: int
) -> None:
    other = daemon.add("other", **publishing(held_port))
    assert host().port_problem(Endpoint(port=held_port), [tenant(other.inspected)]) is None
    other.removed()
    daemon.add(NAME, **publishing(held_port))
    assert host().port_problem(Endpoint(port=held_port), []) is None


def test_a_port_of_another_process_is_said(
    daemon: FakeDaemon, available: SetAvailable, held_port: int
) -> None:
    problem = host().port_problem(Endpoint(port=held_port), [])
    assert problem is not None
    assert f"port {held_port} on 127.0.0.1: is held by another process" in str(problem)
    assert f"ss -ltnp 'sport = :{held_port}'" in problem.fix


def on_the_hosts_network(*flags: str) -> dict[str, Any]:
    return {"host": {"NetworkMode": "host", "PortBindings": {}}, "Cmd": ["vllm", "serve", *flags]}


def test_a_vllm_on_the_hosts_network_has_the_port_of_its_flags(
    daemon: FakeDaemon, available: SetAvailable, port: int
) -> None:
    daemon.info["MemTotal"] = 64 * GIB  # another machine: the ports of this one do not matter
    daemon.add("other", **on_the_hosts_network("--port", str(port)))
    problem = host().port_problem(Endpoint(port=port), [])
    assert problem is not None
    assert "is held by container other" in problem.what
    assert host().port_problem(Endpoint(port=port + 1), []) is None
    other: dict[str, Any] = {"image": "postgres:18", "Entrypoint": [], "Cmd": ["postgres"]}
    daemon.add("database", host=on_the_hosts_network()["host"], **other)
    assert host().port_problem(Endpoint(port=8000), []) is None
    daemon.add("without-flags", **on_the_hosts_network())
    assert host().port_problem(Endpoint(port=8000), []) is not None


def test_a_port_that_our_old_server_has_on_the_hosts_network_is_free(
    daemon: FakeDaemon, available: SetAvailable, held_port: int
) -> None:
    daemon.add(NAME, **on_the_hosts_network("--port", str(held_port)))
    assert host().port_problem(Endpoint(port=held_port), []) is None


def test_the_ports_of_another_machine_are_not_tried_here(
    daemon: FakeDaemon, available: SetAvailable, held_port: int
) -> None:
    daemon.info["MemTotal"] = 64 * GIB
    assert host().port_problem(Endpoint(port=held_port), []) is None


def test_an_address_that_this_host_does_not_have_is_said(
    daemon: FakeDaemon, available: SetAvailable, port: int
) -> None:
    endpoint = Endpoint.model_validate({"bind": "192.0.2.1", "port": port})
    problem = host().port_problem(endpoint, [])
    assert problem is not None
    assert "this host cannot listen there: Cannot assign requested address" in problem.what
    assert "vllm-spark:endpoint.bind must be an address of this host" in problem.fix


def test_a_port_that_only_root_may_listen_on_is_left_to_docker(
    daemon: FakeDaemon, available: SetAvailable, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unprivileged(socket.socket):
        def bind(self, _address: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    asked = host()
    monkeypatch.setattr("socket.socket", Unprivileged)
    monkeypatch.setattr(DockerHost, "_meminfo_here", lambda _self: "here")
    assert asked.port_problem(Endpoint(port=443), []) is None

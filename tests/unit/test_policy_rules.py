"""The rules of the policy pack, over containers as Pulumi has their inputs."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.errors import ConfigError
from vllm_spark.policy.declared import DeclaredContainer
from vllm_spark.policy.rules import RULES

COMMIT = "0123456789" * 4
NVIDIA = "nvcr.io/nvidia/vllm:25.09-py3"
SECRET = "correct horse battery staple"


def broken(
    inputs: dict[str, Any],
    *,
    variables: dict[str, bool] | None = None,
    options: dict[str, float] | None = None,
) -> dict[str, list[str]]:
    """The rules that a container breaks, with their sentences."""
    container = DeclaredContainer.of(inputs, variables)
    found = {
        name: rule.check(container, {**rule.options, **(options or {})})
        for name, rule in RULES.items()
    }
    return {name: sentences for name, sentences in found.items() if sentences}


def server(**inputs: Any) -> dict[str, Any]:
    """A container that breaks no rule, changed in one place."""
    return {
        "image": NVIDIA,
        "command": ["vllm", "serve", "a/b", "--gpu-memory-utilization", "0.85"],
        "envs": ["HF_HUB_OFFLINE=1"],
        "ports": [{"internal": 8000.0, "external": 8000.0, "ip": "127.0.0.1"}],
        "volumes": [{"hostPath": "/opt/hf", "containerPath": "/root/.cache/huggingface"}],
        "networkMode": "bridge",
        **inputs,
    }


def on(*addresses: str | None) -> list[dict[str, Any]]:
    return [
        {"internal": 8000.0, "external": 8000.0, **({"ip": ip} if ip else {})} for ip in addresses
    ]


def test_a_server_on_loopback_breaks_no_rule() -> None:
    assert broken(server(), variables={}) == {}
    loopback = on("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1")
    assert broken(server(ports=loopback), variables={}) == {}


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.7", "::ffff:10.0.0.1", None])
def test_a_server_that_others_reach_needs_a_key_and_tls(address: str | None) -> None:
    reached = server(ports=on("127.0.0.1", address))
    found = broken(reached, variables={})
    assert list(found) == ["open-endpoint", "plain-http"]
    assert len(found["open-endpoint"]) == 1
    assert f"{address or '0.0.0.0'}:8000" in found["open-endpoint"][0]
    with_key = {"VLLM_API_KEY": True}
    assert list(broken(reached, variables=with_key)) == ["plain-http"]


def test_a_server_with_tls_and_a_key_of_its_own_may_be_reached() -> None:
    flags = ["--ssl-certfile", "/c.pem", "--ssl-keyfile", "/k.pem"]
    reached = server(
        ports=on("0.0.0.0"), command=["vllm", "serve", "a/b", *flags], envs=["VLLM_API_KEY=x"]
    )
    assert broken(reached) == {}


@pytest.mark.parametrize(
    ("ports", "flags", "reached"),
    [
        ([], [], True),
        ([], ["--host", "0.0.0.0"], True),
        ([], ["--host", "127.0.0.1"], False),
        # Docker publishes nothing there, so a port of the config does not help.
        (on("127.0.0.1"), [], True),
    ],
)
def test_on_the_hosts_network_the_flags_decide(
    ports: list[dict[str, Any]], flags: list[str], reached: bool
) -> None:
    command = ["vllm", "serve", "a/b", "--gpu-memory-utilization", "0.8", *flags]
    found = broken(server(networkMode="host", ports=ports, command=command), variables={})
    assert "host-network" in found
    assert ("open-endpoint" in found) == reached


def test_all_exposed_ports_published_are_open_to_others() -> None:
    assert "open-endpoint" in broken(server(ports=[], publishAllPorts=True), variables={})


@pytest.mark.parametrize(
    ("image", "moves"),
    [
        ("vllm/vllm-openai:v0.28.0", False),
        ("vllm/vllm-openai:latest", True),
        ("vllm/vllm-openai:cu130-nightly", True),
        (f"vllm/vllm-openai:nightly-{COMMIT}", False),
        ("vllm/vllm-openai", True),
        (f"vllm/vllm-openai:latest@sha256:{'a' * 64}", False),
        (f"sha256:{'a' * 64}", False),
    ],
)
def test_an_image_may_not_move(image: str, moves: bool) -> None:
    assert ("moving-tag" in broken(server(image=image))) == moves


@pytest.mark.parametrize(
    ("inputs", "shown"),
    [
        ({"privileged": True}, "privileged"),
        ({"capabilities": {"adds": ["sys_admin"]}}, "SYS_ADMIN"),
        ({"capabilities": {"adds": ["CAP_SYS_PTRACE"]}}, "SYS_PTRACE"),
        ({"capabilities": {"adds": ["ALL"]}}, "ALL"),
        ({"securityOpts": ["seccomp=unconfined"]}, "seccomp=unconfined"),
        ({"securityOpts": ["apparmor:unconfined"]}, "apparmor:unconfined"),
        ({"securityOpts": ["label=disable"], "ipcMode": "private"}, "label=disable"),
        ({"pidMode": "host"}, "processes"),
        ({"usernsMode": "host"}, "users"),
    ],
)
def test_docker_must_confine_the_container(inputs: dict[str, Any], shown: str) -> None:
    found = broken(server(**inputs), variables={})
    assert list(found) == ["unconfined"]
    assert shown in found["unconfined"][0]


def test_what_rdma_and_a_debugger_do_not_need_is_not_called_unconfined() -> None:
    confined: dict[str, Any] = {
        "capabilities": {"adds": ["IPC_LOCK", "SYS_NICE"], "drops": ["ALL"]},
        "securityOpts": ["no-new-privileges", "seccomp=profile.json"],
        "privileged": False,
    }
    assert broken(server(**confined), variables={}) == {}
    # What Docker itself adds in the host's IPC namespace.
    confined |= {"securityOpts": ["no-new-privileges", "label=disable"], "ipcMode": "host"}
    assert broken(server(**confined), variables={}) == {}


@pytest.mark.parametrize(
    "inputs",
    [
        {"volumes": [{"hostPath": "/var/run/docker.sock", "containerPath": "/d"}]},
        {"volumes": [{"hostPath": "/run/../run/docker.sock"}]},
        {"volumes": [{"hostPath": "/run/user/1000/docker.sock"}]},
        {"volumes": [{"hostPath": "/var/run"}]},
        {"volumes": [{"hostPath": "/"}]},
        {"mounts": [{"type": "bind", "source": "/run/containerd/containerd.sock", "target": "/c"}]},
        {"mounts": [{"source": "/run/podman/podman.sock", "target": "/c"}]},
    ],
)
def test_no_mount_reaches_the_docker_daemon(inputs: dict[str, Any]) -> None:
    assert list(broken(server(**inputs), variables={})) == ["docker-socket"]


def test_a_volume_of_docker_reaches_no_daemon() -> None:
    volumes = [{"volumeName": "vllm-spark-cache", "containerPath": "/c"}]
    mounts = [{"type": "volume", "source": "run", "target": "/c"}]
    assert broken(server(volumes=volumes, mounts=mounts), variables={}) == {}


@pytest.mark.parametrize(
    "entry",
    [f"AWS_SECRET_ACCESS_KEY={SECRET}", f"DB_PASSWORD={SECRET}", "SOME=nvapi-0123456789abcdef"],
)
def test_a_secret_among_plain_variables_is_named_and_its_value_is_not_shown(entry: str) -> None:
    name, _, value = entry.partition("=")
    found = broken(server(envs=[entry]), variables={})
    assert list(found) == ["plain-secret"]
    assert name in str(found) and value not in str(found)
    assert broken(server(envs=[entry]), variables={name: True}) == {}
    # An output that is not marked secret is as readable as a text.
    assert list(broken(server(envs=[entry]), variables={name: False})) == ["plain-secret"]


@pytest.mark.parametrize(
    ("flags", "pinned"),
    [
        (["--trust-remote-code"], False),
        (["--trust_remote_code", "--revision", "main"], False),
        (["--trust-remote-code", "--revision", COMMIT[:12]], False),
        (["--trust-remote-code", f"--revision={COMMIT}"], True),
        (["--no-trust-remote-code"], True),
        ([], True),
    ],
)
def test_code_of_a_repository_runs_only_from_a_commit(flags: list[str], pinned: bool) -> None:
    command = ["vllm", "serve", "a/b", "--gpu-memory-utilization", "0.8", *flags]
    assert ("remote-code" in broken(server(command=command))) != pinned


@pytest.mark.parametrize(
    ("image", "flags", "at_most", "shown"),
    [
        (NVIDIA, ["--gpu-memory-utilization", "0.91"], 0.9, "0.91"),
        (NVIDIA, ["--gpu-memory-utilization=0.85"], 0.8, "0.85"),
        (NVIDIA, ["--gpu-memory-utilization", "0.9"], 0.9, None),
        (NVIDIA, [], 0.9, None),
        (NVIDIA, [], 0.85, "0.9"),
        # vLLM's own default has grown.
        ("vllm/vllm-openai:v0.28.0", [], 0.9, "0.92"),
        ("vllm/vllm-openai-cpu:v0.32.0-x86_64", [], 0.5, None),
    ],
)
def test_the_share_of_memory_has_the_limit_of_the_team(
    image: str, flags: list[str], at_most: float, shown: str | None
) -> None:
    told = server(image=image, command=["vllm", "serve", "a/b", *flags])
    found = broken(told, variables={}, options={"limit": at_most})
    assert list(found) == (["memory-share"] if shown else [])
    assert shown is None or f"is {shown}," in found["memory-share"][0]


def test_what_a_preview_does_not_know_breaks_no_rule() -> None:
    unknown = dict.fromkeys(server() | {"capabilities": 0, "mounts": 0, "securityOpts": 0})
    assert broken(unknown, variables={}) == {}
    # The key may be among the variables that are not known yet.
    assert list(broken(server(ports=on("0.0.0.0"), envs=[None]))) == ["plain-http"]
    assert "open-endpoint" in broken(server(ports=on("0.0.0.0"), envs=[None]), variables={})


def test_the_proxy_with_tls_in_front_of_a_server_is_no_server() -> None:
    proxy = {"image": "caddy:2.10", "command": ["caddy run"], "ports": on("0.0.0.0"), "envs": []}
    assert broken(proxy) == {}
    assert list(broken(proxy | {"privileged": True})) == ["unconfined"]


def parsed(exceptions: object) -> Settings:
    config = {"model": "a/b", "image": NVIDIA, "cache": {"volume": "cache"}}
    return Settings.parse(config | {"policy": {"exceptions": exceptions}}, frozenset())


def test_an_exception_names_a_rule_and_a_reason() -> None:
    settings = parsed([{"rule": "host-network", "reason": "RDMA between two Sparks"}])
    (exception,) = settings.policy.exceptions
    assert (exception.rule, exception.reason) == ("host-network", "RDMA between two Sparks")


@pytest.mark.parametrize(
    ("exception", "where", "words"),
    [
        ({"rule": "host-netwrok", "reason": "RDMA"}, ".rule", "host-network"),
        ({"rule": "host-network"}, ".reason", "is required and missing"),
        ({"rule": "host-network", "reason": "  "}, ".reason", "is not a reason"),
        ({"rule": "host-network", "reason": "a\nb"}, ".reason", "is not a reason"),
        ({"rule": "host-network", "reason": "\x1b[2J"}, ".reason", "is not a reason"),
        ({"rule": "host-network", "reason": "a" * 301}, ".reason", "300"),
        ({"rule": "host-network", "reason": "RDMA", "until": 1}, ".until", "is not a key"),
        ("host-network", "", "{rule, reason}"),
    ],
)
def test_an_exception_that_cannot_be_read_is_refused_with_its_place(
    exception: object, where: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed([{"rule": "moving-tag", "reason": "ours"}, exception])
    (problem,) = refused.value.problems
    assert problem.where == f"vllm-spark:policy.exceptions[1]{where}"
    assert words in str(problem)

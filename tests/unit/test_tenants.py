"""Who is on the GPU is told from Docker's inspections, in all the ways that Docker hands one on."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.deployment.tenants import (
    CHECK_LABEL,
    Identity,
    devices_of,
    foreign,
    in_the_way,
    looks_like_a_server,
    tenant,
)

ONCE = {"RestartPolicy": {"Name": "no"}, "PortBindings": {}}
IDENTITY = Identity("vllm-spark", "spark", "vllm", "0123456789ab")


def inspected(host: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    return {
        "Name": "/other",
        "Config": {
            "Image": "image:1",
            "Env": [],
            "Labels": None,
            "Entrypoint": None,
            "Cmd": None,
            **config,
        },
        "HostConfig": {"RestartPolicy": {"Name": "always"}, **(host or {})},
    }


def test_a_check_of_an_image_is_no_tenant_since_it_ends_by_itself() -> None:
    given = {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}
    assert devices_of(inspected(given))
    assert not devices_of(inspected(given, Labels={CHECK_LABEL: "yes"}))


@pytest.mark.parametrize(
    ("host", "config"),
    [
        ({"PortBindings": {"8000/tcp": [{"HostIp": "", "HostPort": "8000"}]}}, {}),
        ({"RestartPolicy": {"Name": "unless-stopped"}}, {}),
        ({}, {"Cmd": ["vllm", "serve", "owner/model"]}),
    ],
    ids=["ports", "restarts", "vllm"],
)
def test_a_container_that_is_meant_to_stay_looks_like_a_server(
    host: dict[str, Any], config: dict[str, Any]
) -> None:
    assert looks_like_a_server(inspected({**ONCE, **host}, **config))


def test_a_command_that_ends_by_itself_does_not() -> None:
    assert not looks_like_a_server(inspected(ONCE, Cmd=["nvidia-smi"]))


@pytest.mark.parametrize(
    ("labels", "owner"),
    [
        ({"vllm-spark.stack": "spark"}, "(image:1, of stack spark)"),
        (
            {"com.docker.compose.project": "guide", "com.docker.compose.service": "vllm"},
            "(image:1, service vllm of compose project guide)",
        ),
        ({}, "(image:1)"),
    ],
)
def test_a_tenant_is_named_with_its_image_and_with_who_made_it(
    labels: dict[str, str], owner: str
) -> None:
    (problem,) = in_the_way([tenant(inspected(Labels=labels))])
    assert f"container other {owner} runs on it" in problem.what
    assert problem.fix.startswith("docker stop other; ")


def test_a_container_is_ours_only_with_all_that_says_so() -> None:
    labels = IDENTITY.labels
    assert foreign(inspected(Labels=labels), IDENTITY) is None
    for label in labels:
        other = foreign(inspected(Labels={**labels, label: "another"}), IDENTITY)
        assert other is not None, f"a container with another {label} belongs to somebody else"
        assert "docker rm --force other" in other.fix


def test_servers_of_one_program_are_declared_beside_each_other() -> None:
    second = {**IDENTITY.labels, "vllm-spark.server": "second"}
    assert IDENTITY.declared_beside(inspected(Labels=second))
    elsewhere = {**second, "vllm-spark.state-id": "of-another-checkout"}
    assert not IDENTITY.declared_beside(inspected(Labels=elsewhere))

"""Who is on the GPU is told from Docker's inspections, in all the ways that Docker hands one on."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.deployment.tenants import CHECK_LABEL, has_gpu, in_the_way, tenant


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


@pytest.mark.parametrize(
    "host",
    [
        {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]},
        {"DeviceRequests": [{"Driver": "nvidia", "Count": 1, "Capabilities": [["utility"]]}]},
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]},
        {"Devices": [{"PathOnHost": "/dev/nvidia0"}]},
    ],
    ids=["--gpus", "driver", "CDI", "--device"],
)
def test_a_container_that_was_given_a_gpu_is_found(host: dict[str, Any]) -> None:
    assert has_gpu(inspected(host))


def test_nvidias_variable_counts_with_nvidias_runtime_only() -> None:
    env = ["NVIDIA_VISIBLE_DEVICES=all"]
    assert has_gpu(inspected({"Runtime": "nvidia"}, Env=env))
    assert not has_gpu(inspected({"Runtime": "runc"}, Env=env)), "NVIDIA's images all set it"
    assert not has_gpu(inspected({"Runtime": "nvidia"}, Env=["NVIDIA_VISIBLE_DEVICES=void"]))


def test_a_check_of_an_image_is_no_tenant_since_it_ends_by_itself() -> None:
    given = {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}
    assert not has_gpu(inspected(given, Labels={CHECK_LABEL: "yes"}))


def test_a_container_without_a_gpu_is_left_alone() -> None:
    assert not has_gpu(inspected({"DeviceRequests": None, "Devices": None, "Runtime": "runc"}))


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

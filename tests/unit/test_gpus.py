"""Which GPUs a container was given, in all of Docker's ways, and whether two share one."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.deployment.gpus import Devices, Gpu, read_gpus

ALL = Devices(all=True)
H100 = "0, GPU-5f2a7c1e, NVIDIA H100 80GB HBM3, 9.0, 81559, 40933"
GB10 = "0, GPU-77aa0b12, NVIDIA GB10, 12.1, [N/A], [N/A]"
TWO = read_gpus([H100, "1, GPU-99ee0011, NVIDIA H100 80GB HBM3, 9.0, 81559, 81079"])


def named(*names: str) -> Devices:
    return Devices(frozenset(names))


def given(host: dict[str, Any], *env: str) -> Devices:
    return Devices.of_container({"HostConfig": host, "Config": {"Env": list(env)}})


def gpu(*ids: str) -> dict[str, Any]:
    return {"Driver": "", "Count": 0, "DeviceIDs": list(ids), "Capabilities": [["gpu"]]}


@pytest.mark.parametrize(
    ("host", "devices"),
    [
        ({"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}, ALL),
        ({"DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]]}]}, named("0", "1")),
        ({"DeviceRequests": [gpu("1")]}, named("1")),
        ({"DeviceRequests": [{**gpu("GPU-5f2a7c1e"), "Driver": "nvidia"}]}, named("GPU-5f2a7c1e")),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]}, ALL),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=1"]}]}, named("1")),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/net=1"]}]}, Devices()),
        ({"Devices": [{"PathOnHost": f"/dev/nvidia{node}"} for node in ("0", "ctl")]}, named("0")),
        ({"Devices": [{"PathOnHost": "/dev/nvidiactl"}]}, ALL),
        ({"Devices": [{"PathOnHost": "/dev/kvm"}]}, Devices()),
        ({"DeviceRequests": None, "Devices": None, "Runtime": "runc"}, Devices()),
    ],
)  # fmt: skip
def test_docker_names_gpus_in_many_ways(host: dict[str, Any], devices: Devices) -> None:
    assert given(host) == devices


def test_nvidias_variable_counts_with_nvidias_runtime_and_without_a_request() -> None:
    env = "NVIDIA_VISIBLE_DEVICES=all"
    assert given({"Runtime": "nvidia"}, env) == ALL
    assert given({"Runtime": "nvidia"}, "NVIDIA_VISIBLE_DEVICES=0,2") == Devices(
        frozenset({"0", "2"})
    )
    assert not given({"Runtime": "runc"}, env), "NVIDIA's images all set it"
    assert not given({"Runtime": "nvidia"}, "NVIDIA_VISIBLE_DEVICES=void")
    assert given({"Runtime": "nvidia", "DeviceRequests": [gpu("1")]}, env) == Devices(
        frozenset({"1"})
    )


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ({"0"}, {"0"}, True),
        ({"0"}, {"1"}, False),
        ({"0", "1"}, {"1", "2"}, True),
        ({"0"}, {"GPU-5f2a7c1e"}, True),
        ({"0"}, {"GPU-99ee0011"}, False),
        ({"GPU-5f2a7c1e"}, {"GPU-99ee0011"}, False),
        ({"0"}, {"GPU-unknown0"}, True),
        ({"0:0"}, {"0:1"}, False),
        ({"0"}, {"0:1"}, True),
        ({"MIG-1111"}, {"MIG-2222"}, False),
        ({"MIG-1111"}, {"0"}, True),
    ],
)
def test_two_containers_share_a_gpu_unless_they_are_known_to_have_different_ones(
    one: set[str], other: set[str], share: bool
) -> None:
    first, second = Devices(frozenset(one)), Devices(frozenset(other))
    assert first.shares_a_gpu_with(second, TWO) is share
    assert second.shares_a_gpu_with(first, TWO) is share


def test_all_shares_with_everybody_and_nothing_with_nobody() -> None:
    assert ALL.shares_a_gpu_with(named("1"))
    assert not ALL.shares_a_gpu_with(Devices())
    assert not Devices().shares_a_gpu_with(ALL)


def test_a_gb10_has_unified_memory_and_names_no_sizes() -> None:
    (found,) = read_gpus([GB10])
    assert found == Gpu("0", "GPU-77aa0b12", "NVIDIA GB10", "12.1", None, None)
    assert found.is_unified


def test_an_h100_has_memory_of_its_own_and_says_what_is_free() -> None:
    (found,) = read_gpus([H100])
    assert not found.is_unified
    assert found.total_gib == pytest.approx(79.65, abs=0.01)
    assert found.free_gib == pytest.approx(39.97, abs=0.01)


@pytest.mark.parametrize("line", ["", "No devices were found", "Failed to initialize NVML"])
def test_what_is_no_answer_names_no_gpu(line: str) -> None:
    assert read_gpus([line]) == []

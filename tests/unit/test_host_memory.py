"""Whether the memory will do, before the old server is stopped. Unknown is never enough."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.gpus import Gpu
from vllm_spark.deployment.host_memory import (
    Meminfo,
    gpu_shortages,
    machine_misfits,
    memory_held,
    memory_needed,
    page_cache_in_the_way,
    read_meminfo,
    shortage,
)
from vllm_spark.problems import Unmodelled

MEMINFO = """\
MemTotal:       127600640 kB
MemFree:         2097152 kB
MemAvailable:   104857600 kB
"""
GUIDE = {"max-model-len": 32768, "gpu-memory-utilization": 0.85, "max-num-seqs": 64}


def settings(**keys: Any) -> Settings:
    config = {
        "model": {"id": "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"},
        "image": {"name": "nvcr.io/nvidia/vllm:25.09-py3"},
        "cache": {"volume": "weights"},
        "engine": GUIDE,
        **keys,
    }
    return Settings.parse(config, frozenset())


def test_available_memory_counts_and_not_free_memory() -> None:
    memory = read_meminfo(MEMINFO)
    assert memory.available_gib == 100
    assert memory.total_gib == pytest.approx(121.69, abs=0.01)


def test_what_is_no_meminfo_is_refused() -> None:
    with pytest.raises(ValueError, match="MemAvailable"):
        read_meminfo("MemTotal: 1 kB")


def test_a_spark_needs_the_share_that_vllm_asks_for() -> None:
    assert memory_needed(settings()) == pytest.approx(0.85 * 121.69)


def test_a_share_that_is_not_given_is_the_releases_own() -> None:
    assert memory_needed(settings(engine={})) == pytest.approx(0.9 * 121.69)
    newer = settings(engine={}, image={"name": "nvcr.io/nvidia/vllm:26.08-py3"})
    assert memory_needed(newer) == pytest.approx(0.92 * 121.69)


def test_a_gpu_with_a_memory_of_its_own_is_not_held_against_the_hosts() -> None:
    needed = memory_needed(settings(host={"memoryGiB": 139.8, "unified": False}))
    assert isinstance(needed, Unmodelled)


def test_a_cpu_needs_what_is_planned_and_is_unknown_without_a_plan() -> None:
    local: dict[str, Any] = {
        "model": {"id": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "image": {"name": "vllm/vllm-openai-cpu:v0.32.0-x86_64"},
        "engine": {"max-model-len": 2048},
    }
    sized = {"gpus": "none", "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"}}
    assert memory_needed(settings(**local, container=sized)) == pytest.approx(3.55, abs=0.01)
    assert isinstance(memory_needed(settings(**local, container={"gpus": "none"})), Unmodelled)


def test_an_old_server_gives_back_the_share_in_its_command() -> None:
    command = ["vllm", "serve", "a/b", "--gpu-memory-utilization", "0.5"]
    assert memory_held(command, settings()) == pytest.approx(0.5 * 121.69)
    assert isinstance(memory_held(["python3", "train.py"], settings()), Unmodelled)


def test_a_shortage_says_the_numbers_and_the_share_that_would_do() -> None:
    memory = Meminfo(total_gib=121.69, available_gib=20, free_gib=2)
    assert shortage(settings(), 103.4, memory, {"old": 91.0}) is None
    problem = shortage(settings(), 103.4, memory, {"old": 60.85})
    assert problem is not None
    assert problem.what == (
        "the server needs 103.4 GiB; 20.0 of the host's 121.7 are available, and old gives back "
        "about 60.9"
    )
    assert "lower vllm-spark:engine.gpu-memory-utilization to 0.66" in problem.fix


def test_a_vllm_that_counts_page_cache_as_used_is_told_of() -> None:
    memory = Meminfo(total_gib=121.69, available_gib=115, free_gib=80)
    doubt = page_cache_in_the_way(settings(), 103.4, memory)
    assert doubt is not None
    assert doubt.startswith("35.0 GiB of the available memory are page cache")
    newer = settings(image={"name": "nvcr.io/nvidia/vllm:26.08-py3"})
    assert page_cache_in_the_way(newer, 103.4, memory) is None


GB10 = Gpu("0", "GPU-1", "NVIDIA GB10", "12.1", None, None)
H100 = Gpu("0", "GPU-2", "NVIDIA H100 80GB HBM3", "9.0", total_gib=79.18, free_gib=40.15)
DISCRETE = {"memoryGiB": 79.18, "unified": False}


def test_a_gpu_whose_memory_another_process_holds_is_too_small() -> None:
    """Seen on an H100: another process held 38.5 GiB, and the old server was given up for it."""
    engine = {**GUIDE, "gpu-memory-utilization": 0.6}
    (problem,) = gpu_shortages(settings(host=DISCRETE, engine=engine), [H100], {})
    assert problem.where == "memory of GPU 0"
    assert "needs 47.5 GiB; 40.1 of 79.2 are free" in problem.what
    assert "gpu-memory-utilization to 0.5" in problem.fix


def test_what_the_old_server_gives_back_counts_and_never_beyond_what_the_gpu_has() -> None:
    full = settings(host=DISCRETE, engine={**GUIDE, "gpu-memory-utilization": 0.85})
    assert gpu_shortages(full, [H100], {"vllm-spark": 30.0}) == []
    beyond = settings(host=DISCRETE, engine={**GUIDE, "gpu-memory-utilization": 1.0})
    smaller = Gpu("0", "GPU-2", "NVIDIA H100", "9.0", total_gib=79.18, free_gib=78.0)
    assert gpu_shortages(beyond, [smaller], {"vllm-spark": 200.0}) == []


def test_a_share_that_would_do_is_one_of_the_memory_that_the_driver_counts() -> None:
    """Seen on an H100: nvidia-smi counts 79.65 GiB, vLLM 79.18; the fix was the value itself."""
    engine = {**GUIDE, "gpu-memory-utilization": 0.99}
    gpu = replace(H100, total_gib=79.65, free_gib=46.8)
    (problem,) = gpu_shortages(settings(host=DISCRETE, engine=engine), [gpu], {"old": 31.7})
    assert "lower vllm-spark:engine.gpu-memory-utilization to 0.98" in problem.fix


def test_memory_that_comes_back_has_a_ceiling() -> None:
    memory = Meminfo(total_gib=121.7, available_gib=110.0, free_gib=5.0)
    assert shortage(settings(), 125.0, memory, {"crash-looping": 103.0}) is not None


def test_a_plan_for_a_larger_machine_names_the_number_to_set() -> None:
    memory = Meminfo(total_gib=59.71, available_gib=50.0, free_gib=5.0)
    (problem,) = machine_misfits(settings(), memory, [GB10])
    assert "for 121.69 GiB, and this machine has 59.71" in problem.what
    assert problem.fix == "pulumi config set --path vllm-spark:host.memoryGiB 59.71"


def test_the_sizes_that_sparks_show_are_one_machine() -> None:
    memory = Meminfo(total_gib=119.6, available_gib=110.0, free_gib=5.0)
    assert machine_misfits(settings(), memory, [GB10]) == []


def test_unified_memory_is_asked_of_the_gpu_and_never_guessed_by_size() -> None:
    memory = Meminfo(total_gib=251.0, available_gib=240.0, free_gib=5.0)
    (problem,) = machine_misfits(settings(host={"memoryGiB": 79.18}), memory, [H100])
    assert problem.where == "vllm-spark:host.unified"
    assert problem.fix == "pulumi config set --path vllm-spark:host.unified false"
    assert machine_misfits(settings(host=DISCRETE), memory, [H100]) == []

"""Faults that a real vLLM shows on demand: at its start, and while it serves."""

from __future__ import annotations

from typing import Any

import docker
import pytest

from tests.e2e.project import UP, Project

pytestmark = pytest.mark.e2e

ENGINE = {"max-model-len": 2048, "max-num-seqs": 4, "enforce-eager": True}

TELL_ENGINE = """
import os, pathlib, sys
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if (process / "cmdline").read_bytes().startswith(b"VLLM::EngineCore"):
        os.kill(int(process.name), int(sys.argv[1]))
"""
"""Sends a signal, by its number, to the EngineCore process inside the container."""


def inspected(docker_client: docker.DockerClient, project: Project) -> dict[str, Any]:
    state: dict[str, Any] = docker_client.api.inspect_container(project.container)["State"]
    return state


def tell_engine(docker_client: docker.DockerClient, project: Project, signal: int) -> None:
    container = docker_client.containers.get(project.container)
    told = container.exec_run(["python3", "-c", TELL_ENGINE, str(signal)])
    assert told.exit_code == 0, told.output


def assert_comes_up(project: Project) -> None:
    project.configure(engine=ENGINE)
    up = project.up()
    assert up.code == 0, up.output


def test_a_kv_cache_that_is_too_small_is_told_with_the_length_that_fits(
    project: Project, docker_client: docker.DockerClient
) -> None:
    # Without VLLM_CPU_KVCACHE_SPACE, which overrides the flag and would fail the memory plan.
    container = {"name": project.container, "gpus": "none"}
    project.configure(engine={**ENGINE, "kv-cache-memory-bytes": 32 << 20}, container=container)
    up = project.up()
    assert up.code != 0
    assert "max-model-len 2048 does not fit into the KV cache: 1280 tokens do" in up.output
    assert "fix:   set max-model-len to at most 1280" in up.output
    assert "See root cause above" not in up.output
    assert not inspected(docker_client, project)["Running"]


def test_a_start_killed_for_memory_is_told(
    project: Project, docker_client: docker.DockerClient
) -> None:
    project.configure(engine=ENGINE)  # a correct config: the server is killed from outside
    up = project.begin(*UP)
    up.until("HealthGate vllm-health")
    # Less memory than vLLM's imports need, and far more than they can have taken by now: cgroup v1
    # refuses a limit below the current usage.
    limit = 450 << 20
    docker_client.api.update_container(project.container, mem_limit=limit, memswap_limit=limit)
    ended = up.end()
    assert ended.code != 0
    assert "killed for memory" in ended.output
    assert not inspected(docker_client, project)["Running"]
    assert_comes_up(project)


def test_an_engine_that_hangs_fails_the_gate_though_health_is_green(
    project: Project, docker_client: docker.DockerClient
) -> None:
    tell_engine(docker_client, project, 19)  # SIGSTOP
    project.configure(engine=ENGINE, health={"timeoutSeconds": 10})
    up = project.pulumi(*UP, "--replace", "**HealthGate**")  # otherwise the gate would not run
    assert up.code != 0
    assert "did not answer within 10 s" in up.output
    assert "fix:   the engine hangs" in up.output
    assert not inspected(docker_client, project)["Running"]
    assert_comes_up(project)


def test_an_engine_killed_while_it_serves_is_waited_for_again(
    project: Project, docker_client: docker.DockerClient
) -> None:
    before = inspected(docker_client, project)["StartedAt"]
    deaths = docker_client.events(
        filters={"container": project.container, "event": "die"}, decode=True
    )
    tell_engine(docker_client, project, 9)
    assert next(deaths)["Actor"]["Attributes"]["exitCode"] == "0", "vLLM calls it a success"
    deaths.close()
    up = project.up()
    assert up.code == 0, up.output
    assert "vllm-health updated" in up.output, "Docker's restart is no answer"
    assert inspected(docker_client, project)["StartedAt"] != before

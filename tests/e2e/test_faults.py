"""The fault matrix: what can go wrong at a start, through the real Pulumi and the real Docker.

Each fault ends the `up` with its cause and fix, and leaves a stopped container. The next `up` with
a correct config succeeds. The fake server shows faults that a real one does not show on demand; the
others are in test_local_stack.py and test_real_faults.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import docker
import pytest

from tests.e2e.project import Project, Run, Underway, assert_comes_up

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

LOADS_FOR_EVER = {"load": "60"}


@dataclass(frozen=True)
class Fault:
    """Switches of the fake server, keys of the config, and the texts shown to the user."""

    switches: dict[str, str]
    said: tuple[str, ...]
    config: dict[str, Any] = field(default_factory=dict)


FAULTS = {
    "exit 0 during the start": Fault({"fault": "exit-0"}, ("exit code 0 before it served",)),
    "a crash loop under unless-stopped": Fault({"fault": "exit-1"}, ("exit",)),
    "a failure in the log of a process that lives on": Fault(
        {"fault": "mute"}, ("no memory is left for the KV cache", "gpu-memory-utilization")
    ),
    "a start beyond the deadline": Fault(
        LOADS_FOR_EVER,
        ("did not answer within 3 s", "raise vllm-spark:health.timeoutSeconds"),
        {"health": {"timeoutSeconds": 3}},
    ),
    "a start that stalls": Fault(
        LOADS_FOR_EVER,
        ("nothing new for 2 s", "vllm-spark:health.stallSeconds"),
        {"health": {"stallSeconds": 2}},
    ),
    "a server that takes connections and never answers": Fault(
        {"fault": "hang"}, ("did not answer within 7 s",), {"health": {"timeoutSeconds": 7}}
    ),
    "200 on /health with a wedged engine": Fault(
        {"fault": "wedge-0"},
        ("did not answer within 15 s", "the engine hangs"),
        {"health": {"timeoutSeconds": 15}},  # long enough to reach the completion
    ),
    "200 on /health with a dead engine": Fault(
        {"fault": "dead-engine-0"}, ("EngineCore encountered an issue",)
    ),
    "an answer of 500": Fault({"fault": "status-500"}, ("answers 500 on /v1/completions",)),
    "a model without a tokenizer": Fault({"fault": "no-tokenizer"}, ("400", "tokenizer")),
    "garbage for an answer": Fault({"fault": "garbage"}, ("empty or broken", "It works!")),
    "half of an answer": Fault({"fault": "half"}, ("broke off in the middle of its answer",)),
    "a redirect": Fault({"fault": "redirect"}, ("302", "something other than vLLM listens")),
    "a server that dies right after its answer": Fault(
        {"fault": "die-after-answer"}, ("exit code 0",)
    ),
    "another model's name": Fault(
        {"model": "another/model"}, ("serves another/model and not", "servedName")
    ),
    "another API key": Fault({"key": "another"}, ("401", "set vllm-spark:apiKey")),
}


def container(docker_client: docker.DockerClient, project: Project) -> dict[str, Any]:
    inspected: dict[str, Any] = docker_client.api.inspect_container(project.container)
    return inspected


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_its_container_stopped_and_kept_and_a_corrected_config_comes_up(
    fault: Fault, project: Project, docker_client: docker.DockerClient
) -> None:
    project.configure_fake(fault.switches, **fault.config)
    up = project.up()
    assert_failed(up)
    for words in fault.said:
        assert words in up.output
    state = container(docker_client, project)["State"]
    assert not state["Running"]
    assert not state["Restarting"], "it would keep the memory that the next start needs"
    assert_comes_up(project)


def test_a_container_that_is_removed_meanwhile_is_told(
    waiting: Underway, project: Project, docker_client: docker.DockerClient
) -> None:
    docker_client.api.remove_container(project.container, force=True)
    ended = waiting.end()
    assert_failed(ended)
    assert "the container was removed" in ended.output, ended.output
    assert_comes_up(project)


def assert_failed(up: Run) -> None:
    assert up.code != 0, up.output
    assert "cause:" in up.output
    assert "fix:" in up.output
    assert "Traceback" not in up.output

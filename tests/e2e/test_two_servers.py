"""Two servers of one program, side by side: each with a port, a last good deployment and a status.

These tests use the real Pulumi engine, the real Docker daemon and two fake servers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import docker
import pytest
import requests

from tests.e2e.project import FAKE_IMAGE, Project, Run, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]

PROGRAM = """
import pulumi
from components import VllmServer, VllmServerArgs
from vllm_spark.config.settings import Settings

config = pulumi.Config("two")
for name in ("first", "second"):
    given = config.require_object(name)
    args = VllmServerArgs(
        settings=Settings.parse(given, frozenset()),
        environment={"GREETING": pulumi.Output.secret(f"hello from {name}")},
    )
    pulumi.export(name, VllmServer(name, args).url)
"""


class Two:
    """The project, and the config of its two servers."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.servers = {name: self._server(name) for name in ("first", "second")}
        (project.directory / "__main__.py").write_text(PROGRAM)

    def _server(self, name: str) -> dict[str, Any]:
        return {
            "model": {"id": "HuggingFaceTB/SmolLM2-135M-Instruct"},
            "image": {"name": FAKE_IMAGE},
            "engine": {"max-model-len": 2048, "max-num-seqs": 4, "enforce-eager": True},
            "cache": {"volume": "vllm-spark-cache"},
            "endpoint": {"port": free_port()},
            "host": {"memoryGiB": 8, "memoryBandwidthGBps": 40},
            "container": {
                "name": f"{self.project.container}-{name}",
                "gpus": "none",
                "environment": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"},
            },
        }

    def write(self) -> None:
        keys = {f"two:{name}": server for name, server in self.servers.items()}
        file = self.project.directory / f"Pulumi.{self.project.stack}.yaml"
        file.write_text(json.dumps({"config": keys}))

    def up(self) -> Run:
        self.write()
        return self.project.up()

    def cli(self, *arguments: str) -> Run:
        """`vllm-spark` in the project's folder, on its stack."""
        ended = subprocess.run(
            [sys.executable, "-m", "vllm_spark", *arguments, "--stack", self.project.stack],
            cwd=self.project.directory,
            env=self.project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Run(ended.returncode, ended.stdout)

    def answers(self, name: str) -> bool:
        port = self.servers[name]["endpoint"]["port"]
        return requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=60).status_code == 200

    def container(self, name: str) -> str:
        return str(self.servers[name]["container"]["name"])


@pytest.fixture(scope="module")
def two(project: Project) -> Two:
    """Both up."""
    two = Two(project)
    up = two.up()
    assert up.code == 0, up.output
    return two


def test_both_answer_on_their_own_port_and_the_next_preview_is_empty(two: Two) -> None:
    assert two.answers("first")
    assert two.answers("second")
    preview = two.project.pulumi("preview", "--expect-no-changes", "--diff")
    assert preview.code == 0, preview.output


def test_both_carry_the_same_state_and_names_of_their_own(
    two: Two, docker_client: docker.DockerClient
) -> None:
    labels = {
        name: docker_client.api.inspect_container(two.container(name))["Config"]["Labels"]
        for name in two.servers
    }
    assert labels["first"]["vllm-spark.server"] == "first"
    assert labels["second"]["vllm-spark.server"] == "second"
    assert labels["first"]["vllm-spark.state-id"] == labels["second"]["vllm-spark.state-id"]


def test_an_environment_of_outputs_reaches_the_container_and_stays_secret(
    two: Two, docker_client: docker.DockerClient
) -> None:
    environment = docker_client.api.inspect_container(two.container("first"))["Config"]["Env"]
    assert "GREETING=hello from first" in environment
    assert "hello from first" not in two.project.pulumi("stack", "export").output


def test_status_names_each_server_and_a_stopped_one_makes_it_fail(
    two: Two, docker_client: docker.DockerClient
) -> None:
    good = two.cli("status", "--json")
    assert good.code == 0, good.output
    servers = json.loads(good.output)["servers"]
    assert {one["server"]: one["serving"] for one in servers} == {"first": "yes", "second": "yes"}
    assert all(one["drift"] == [] for one in servers), servers
    docker_client.api.stop(two.container("second"), timeout=0)
    bad = two.cli("status")
    assert bad.code == 1
    assert "server     second" in bad.output
    assert two.cli("status", "--server", "first").code == 0
    again = two.up()
    assert again.code == 0, again.output


def test_which_server_is_meant_has_to_be_said(two: Two) -> None:
    stop = two.cli("stop")
    assert stop.code == 2
    assert "its servers are: first, second" in stop.output


def test_a_failed_change_of_one_leaves_the_other_alone_and_is_rolled_back_by_itself(
    two: Two, docker_client: docker.DockerClient
) -> None:
    first = docker_client.api.inspect_container(two.container("first"))["Id"]
    good = dict(two.servers["second"])
    environment = {**good["container"]["environment"], "FAKE_FAULT": "exit"}
    two.servers["second"] = {**good, "container": {**good["container"], "environment": environment}}
    failed = two.up()
    assert failed.code != 0
    assert two.answers("first"), "the failure of one is not the other's"
    back = two.cli("rollback", "--server", "second")
    assert back.code == 0, back.output
    assert two.answers("second")
    assert docker_client.api.inspect_container(two.container("first"))["Id"] == first
    two.servers["second"] = good
    restored = two.up()
    assert restored.code == 0, restored.output
    assert docker_client.api.inspect_container(two.container("first"))["Id"] == first

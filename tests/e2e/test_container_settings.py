"""A server with more of its host than Docker gives: it answers, nothing differs, and what Docker
would refuse is found while it still serves.
"""

from __future__ import annotations

from typing import Any

import docker
import pytest

from tests.e2e.project import UP, Project
from vllm_spark.config.stack_file import load_stack
from vllm_spark.docker_host.drift import drift_lines

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("fake_image")]


def of_the_host(project: Project, **keys: Any) -> None:
    """Configure the server to get one of everything; `keys` replace keys of the container."""
    given = project.directory / "templates"
    given.mkdir(exist_ok=True)
    container = {
        "ipc": "host",
        "network": "host",
        "securityOptions": ["seccomp=unconfined"],
        "capabilities": {"add": ["IPC_LOCK"], "drop": ["NET_RAW"]},
        "devices": ["/dev/fuse:rw"],
        "mounts": [{"hostPath": str(given), "containerPath": "/templates", "readOnly": True}],
        "log": {"driver": "local", "maxSize": "1m"},
        **keys,
    }
    project.configure_fake({"port": str(project.port)}, container=container)


@pytest.fixture(scope="module")
def serving(project: Project) -> Project:
    of_the_host(project)
    up = project.up()
    assert up.code == 0, up.output
    return project


def test_it_answers_on_the_hosts_network_and_nothing_differs(
    serving: Project, docker_client: docker.DockerClient
) -> None:
    assert serving.answers()
    assert serving.outputs()["vllmVersion"] == "0.32.0"
    container = docker_client.api.inspect_container(serving.container)
    assert container["HostConfig"]["NetworkMode"] == "host"
    declared = load_stack(serving.directory / f"Pulumi.{serving.stack}.yaml")
    assert drift_lines(docker_client, declared, (), container) == []
    again = serving.pulumi("preview", "--refresh", "--expect-no-changes")
    assert again.code == 0, again.output


def test_a_preview_names_what_would_change(serving: Project) -> None:
    of_the_host(serving, devices=[], network="bridge")
    preview = serving.pulumi("preview", "--diff")
    assert "- devices" in preview.output
    assert '"host" => "bridge"' in preview.output


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"devices": ["/dev/infiniband-of-ours"]}, "vllm-spark:container.devices"),
        (
            {"mounts": [{"hostPath": "/no/such/folder", "containerPath": "/templates"}]},
            "vllm-spark:container.mounts",
        ),
    ],
)
def test_what_the_host_does_not_have_is_found_while_the_old_server_serves(
    serving: Project, keys: dict[str, Any], where: str
) -> None:
    of_the_host(serving, **keys)
    up = serving.pulumi(*UP)
    assert up.code != 0
    assert where in up.output
    assert "is left untouched" in up.output
    assert serving.answers()

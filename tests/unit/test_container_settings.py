"""What a stack may give its container of the host: its form, its warnings, what it is told as."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_settings import parse, problems
from vllm_spark.deployment.review import review
from vllm_spark.deployment.serving import server_arguments
from vllm_spark.errors import ConfigError

WHERE = "vllm-spark:container"


@pytest.mark.parametrize(
    ("container", "where", "said"),
    [
        ({"shmSize": "16"}, "shmSize", "such as 16g"),
        ({"shmSize": "0g", "ipc": "private"}, "shmSize", "'0g'"),
        ({"shmSize": "16g"}, "shmSize", "has no effect with ipc: host"),
        ({"network": "none"}, "network", "bridge, or host"),
        ({"securityOptions": ["seccomp=profile.json"]}, "securityOptions", "seccomp=unconfined"),
        ({"securityOptions": ["systempaths=unconfined"]}, "securityOptions", "seccomp=unconfined"),
        ({"capabilities": {"add": ["SYS_ROOT"]}}, "capabilities.add", "'SYS_ROOT' is not"),
        (
            {"capabilities": {"add": ["IPC_LOCK"], "drop": ["CAP_IPC_LOCK"]}},
            "capabilities",
            "CAP_IPC_LOCK is to be added and dropped",
        ),
        ({"devices": ["infiniband"]}, "devices", "/dev/infiniband"),
        ({"devices": ["/dev/fuse:rx"]}, "devices", "HOST:CONTAINER:PERMISSIONS"),
        ({"mounts": [{"containerPath": "/a"}]}, "mounts[0]", "neither hostPath nor volume"),
        (
            {"mounts": [{"hostPath": "/a", "volume": "bb", "containerPath": "/a"}]},
            "mounts[0]",
            "both hostPath and volume",
        ),
        ({"mounts": [{"hostPath": "a", "containerPath": "/a"}]}, "mounts[0].hostPath", "'a'"),
        ({"mounts": [{"hostPath": "/..", "containerPath": "/a"}]}, "mounts[0].hostPath", "'/..'"),
        ({"mounts": [{"volume": "bb", "containerpath": "/a"}]}, "mounts[0].containerpath", "write"),
        (
            {"mounts": [{"volume": "bb", "containerPath": path} for path in ("/a", "//a/")]},
            "mounts",
            "more than one mount has the containerPath /a",
        ),
        ({"log": {"driver": "none"}}, "log.driver", "json-file, local or journald"),
        ({"log": {"maxSize": "100"}}, "log.maxSize", "such as 100m"),
        ({"log": {"driver": "journald", "maxFile": 2}}, "log", "SystemMaxUse"),
    ],
)
def test_a_mistake_names_its_key_and_the_fix(
    container: dict[str, Any], where: str, said: str
) -> None:
    assert said in problems(container=container)[f"{WHERE}.{where}"]


def test_nothing_of_the_host_is_given_unless_told_but_the_log_cannot_fill_the_disk() -> None:
    container = parse().container
    assert container.chosen == {}
    assert (container.network, container.devices, container.mounts) == ("bridge", [], [])
    assert container.log.options == {"max-size": "100m", "max-file": "3"}
    assert parse(container={"log": {"driver": "journald"}}).container.log.options == {}


def test_a_device_may_be_written_as_for_docker_run() -> None:
    devices = ["/dev/infiniband", "/dev/fuse:r", "/dev/a:/dev/b", "/dev/a:/dev/c:rw"]
    assert parse(container={"devices": devices}).container.device_mappings == [
        ("/dev/infiniband", "/dev/infiniband", "rwm"),
        ("/dev/fuse", "/dev/fuse", "r"),
        ("/dev/a", "/dev/b", "rwm"),
        ("/dev/a", "/dev/c", "rw"),
    ]


def test_docker_disables_labels_where_the_ipc_namespace_is_the_hosts() -> None:
    def declared(**container: Any) -> list[str]:
        return parse(container=container).container.security_opts

    assert declared() == []
    options = ["seccomp=unconfined"]
    assert declared(securityOptions=options) == [*options, "label=disable"]
    assert declared(securityOptions=options, ipc="private") == options
    assert declared(securityOptions=["label=type:x"]) == ["label=type:x"]


@pytest.mark.parametrize("name", ["ipc_lock", "IPC_LOCK", "CAP_IPC_LOCK"])
def test_a_capability_has_one_name_however_it_is_written(name: str) -> None:
    asked = parse(container={"capabilities": {"add": [name]}}).container.capabilities
    assert asked.add == ["CAP_IPC_LOCK"]


def warnings(**container: Any) -> str:
    found = review(parse(container=container)).warnings
    return "\n".join(str(warning) for warning in found if warning.where.startswith(WHERE))


def test_all_that_a_container_gets_of_its_host_is_named_in_one_warning() -> None:
    said = warnings(
        network="host",
        devices=["/dev/infiniband"],
        capabilities={"add": ["IPC_LOCK"], "drop": ["NET_RAW"]},
        securityOptions=["seccomp=unconfined", "no-new-privileges"],
        mounts=[{"hostPath": "/opt/templates", "containerPath": "/templates"}],
        log={"driver": "local"},
    )
    assert said.splitlines()[0] == (
        f"{WHERE}: the server gets more of the host than Docker gives: its network, device "
        "/dev/infiniband, capability CAP_IPC_LOCK, seccomp=unconfined"
    )
    assert "controls the host" not in said
    assert warnings() == ""


@pytest.mark.parametrize(
    "container",
    [
        {"mounts": [{"hostPath": path, "containerPath": "/host"}]}
        for path in ("/var/run/docker.sock", "/run/user/1000/podman/podman.sock", "/etc/", "/run")
    ]
    + [{"capabilities": {"add": [name]}} for name in ("ALL", "sys_admin")],
)
def test_what_gives_the_host_away_is_said(container: dict[str, Any]) -> None:
    assert "whoever controls the server controls the host" in warnings(**container)


def test_a_secret_among_the_plain_variables_is_named_and_not_shown() -> None:
    said = warnings(environment={"WANDB_API_KEY": "0123456789", "VLLM_LOGGING_LEVEL": "INFO"})
    assert f"{WHERE}.environment.WANDB_API_KEY: looks like a secret" in said
    assert "secretEnvironment.WANDB_API_KEY" in said
    assert "0123456789" not in said
    assert "LOGGING" not in said


@pytest.mark.parametrize("path", ["/root/.cache/huggingface/", "/root/.cache"])
def test_a_mount_that_would_hide_the_weights_is_refused(path: str) -> None:
    mounts = [{"volume": "other", "containerPath": path}]
    with pytest.raises(ConfigError, match="is where vllm-spark:cache is mounted"):
        review(parse(container={"mounts": mounts}))


def test_on_the_hosts_network_vllm_itself_listens_on_the_endpoint() -> None:
    settings = parse(container={"network": "host"}, endpoint={"bind": "0.0.0.0", "port": 9000})
    assert {"--host=0.0.0.0", "--port=9000"} <= set(server_arguments(settings))
    published = server_arguments(parse(endpoint={"port": 9000}))
    assert not [flag for flag in published if flag.startswith(("--host", "--port"))]
    assert settings.endpoint.base_url == "http://127.0.0.1:9000/v1"

"""Each difference between what runs and what is declared has a name; of secrets, only that."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_spark.config.settings import Settings
from vllm_spark.deployment.drift import drift_of
from vllm_spark.deployment.serving import (
    COMPILE_CACHES,
    compile_caches,
    server_command,
    server_environment,
)

IMAGE_ID = "sha256:0123456789abcdef"
CONFIG: dict[str, Any] = {
    "model": "Qwen/Qwen3-32B-FP8",
    "image": "nvcr.io/nvidia/vllm:25.09-py3",
    "cache": {"hostPath": "/opt/hf"},
    "engine": {"max-model-len": 8192, "max-num-seqs": 4, "enable-prefix-caching": True},
    "container": {"ulimits": {"stack": 67108864}, "environment": {"A": "b"}},
}


def settings(**keys: Any) -> Settings:
    secret = frozenset({"apiKey"} & keys.keys())
    return Settings.parse({**CONFIG, **keys}, secret)


def running(declared: Settings, *secrets: str) -> dict[str, Any]:
    """`docker inspect` of a container that was made from these settings."""
    environment = {**server_environment(declared), **compile_caches(declared, IMAGE_ID)}
    return {
        "Image": IMAGE_ID,
        "RestartCount": 0,
        "State": {"Running": True, "Paused": False, "Status": "running", "ExitCode": 0},
        "Config": {
            "Image": declared.image.name,
            "Cmd": server_command(declared),
            "Env": [*(f"{key}={value}" for key, value in environment.items()), *secrets, "PATH=/"],
            "StopTimeout": 10,
        },
        "HostConfig": {
            "PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}]},
            "DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}],
            "IpcMode": "host",
            "RestartPolicy": {"Name": "unless-stopped"},
            "Binds": ["/opt/hf:/root/.cache/huggingface:rw"],
            "Ulimits": [{"Name": "stack", "Soft": 67108864, "Hard": 67108864}],
            "NetworkMode": "bridge",
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": "100m", "max-file": "3"},
            },
            "ShmSize": 64 << 20,
            # Docker's own addition, because of `IpcMode: host`.
            "SecurityOpt": ["label=disable"],
            "CapAdd": None,
            "CapDrop": None,
            "Devices": [],
        },
    }


OF_THE_HOST: dict[str, Any] = {
    "ipc": "private",
    "shmSize": "16g",
    "network": "host",
    "securityOptions": ["seccomp=unconfined"],
    "capabilities": {"add": ["IPC_LOCK"], "drop": ["NET_RAW"]},
    "devices": ["/dev/infiniband"],
    "mounts": [{"hostPath": "/opt/templates", "containerPath": "/templates", "readOnly": True}],
    "log": {"driver": "local", "maxSize": "10m"},
}


def running_with_more_of_the_host() -> dict[str, Any]:
    """The same of a container that was made with OF_THE_HOST."""
    container = running(settings(container={**CONFIG["container"], **OF_THE_HOST}))
    container["HostConfig"] |= {
        "PortBindings": {},
        "IpcMode": "private",
        "NetworkMode": "host",
        "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "3"}},
        "ShmSize": 16 << 30,
        "SecurityOpt": ["seccomp=unconfined"],
        "CapAdd": ["IPC_LOCK"],
        "CapDrop": ["CAP_NET_RAW"],
        "Devices": [
            {
                "PathOnHost": "/dev/infiniband",
                "PathInContainer": "/dev/infiniband",
                "CgroupPermissions": "rwm",
            }
        ],
        "Mounts": [
            {"Type": "bind", "Source": "/opt/templates", "Target": "/templates", "ReadOnly": True}
        ],
    }
    return container


def drift(declared: Settings, container: dict[str, Any], image_id: str = IMAGE_ID) -> list[str]:
    secrets = ["VLLM_API_KEY"] if declared.api_key is not None else []
    return drift_of(declared, secrets, image_id, container, {"Config": {"Env": ["PATH=/"]}})


def test_a_container_that_was_made_from_the_config_does_not_differ() -> None:
    assert drift(settings(), running(settings())) == []


def test_the_order_of_the_keys_in_a_flag_is_no_difference() -> None:
    draft = {"method": "mtp", "num_speculative_tokens": 2}
    deployed = settings(engine={**CONFIG["engine"], "speculative-config": draft})
    turned = dict(reversed(draft.items()))
    declared = settings(engine={"speculative-config": turned, **CONFIG["engine"]})
    assert drift(declared, running(deployed)) == []


def test_what_a_container_has_of_its_host_is_compared() -> None:
    declared = settings(container={**CONFIG["container"], **OF_THE_HOST})
    assert drift(declared, running_with_more_of_the_host()) == []
    assert drift(declared, running(settings())) == [
        "capability CAP_IPC_LOCK: runs without, declared added",
        "capability CAP_NET_RAW: runs without, declared dropped",
        "device /dev/infiniband: runs without, declared /dev/infiniband:rwm",
        'flag host: runs without, declared "127.0.0.1"',
        "flag port: runs without, declared 8000",
        "ipc: runs with host, declared private",
        "log: runs with json-file max-file=3 max-size=100m, declared local max-file=3 max-size=10m",
        "mount /templates: runs without, declared /opt/templates, read-only",
        "network: runs with bridge, declared host",
        "port: runs with 127.0.0.1:8000, not declared",
        "security option seccomp=unconfined: runs without, declared set",
        "shared memory: runs without, declared 16384 MiB",
    ]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"engine": {**CONFIG["engine"], "max-num-seqs": 8}},
         "flag max-num-seqs: runs with 4, declared 8"),
        ({"engine": {"max-model-len": 8192, "max-num-seqs": 4}},
         "flag enable-prefix-caching: runs with true, not declared"),
        ({"container": {**CONFIG["container"], "environment": {"A": "c"}}},
         "variable A: runs with b, declared c"),
        ({"endpoint": {"port": 9000}}, "port: runs with 127.0.0.1:8000, declared 127.0.0.1:9000"),
        ({"cache": {"volume": "weights"}}, "cache: runs with /opt/hf, declared weights"),
        ({"container": {**CONFIG["container"], "gpus": [0]}}, "gpus: runs with all, declared 0"),
        ({"container": {**CONFIG["container"], "gpuAccess": "cdi"}},
         "gpus: runs with all, declared nvidia.com/gpu=all"),
    ],
)  # fmt: skip
def test_a_change_of_the_config_that_is_not_deployed_is_named(
    keys: dict[str, Any], said: str
) -> None:
    assert drift(settings(**keys), running(settings())) == [said]


def test_a_tag_that_has_moved_is_named_with_the_kernels_that_move_with_it() -> None:
    lines = drift(settings(), running(settings()), "sha256:fedcba9876543210")
    assert f"image id: runs with {IMAGE_ID}, declared sha256:fedcba9876543210" in lines
    assert sum("variable " in line for line in lines) == len(COMPILE_CACHES)


def test_of_a_secret_only_its_being_there_is_told() -> None:
    lines = drift(settings(), running(settings(), "VLLM_API_KEY=of-ours"))
    assert lines == ["variable VLLM_API_KEY: runs with set, not declared"]
    with_key = settings(apiKey="(encrypted)")
    assert drift(with_key, running(with_key, "VLLM_API_KEY=of-ours")) == []


def test_a_server_that_was_restarted_or_has_ended_is_told() -> None:
    container = running(settings())
    container["RestartCount"] = 35
    assert drift(settings(), container) == ["restarts: Docker has restarted it 35 times"]
    container = running(settings())
    container["State"] = {"Running": False, "Paused": False, "Status": "exited", "ExitCode": 137}
    assert drift(settings(), container) == ["state: exited, exit code 137"]


def test_a_variable_that_is_declared_as_the_image_has_it_does_not_differ() -> None:
    declared = settings(container={**CONFIG["container"], "environment": {"A": "b", "PATH": "/"}})
    container = running(declared)
    container["Config"]["Env"].remove("PATH=/")
    assert drift(declared, container) == []


def test_a_stack_that_is_to_be_stopped_does_not_differ_by_being_so() -> None:
    container = running(settings())
    container["State"] = {"Running": False, "Paused": False, "Status": "created", "ExitCode": 0}
    assert drift(settings(state="stopped"), container) == []
    assert drift(settings(), container) == ["state: created, exit code 0"]

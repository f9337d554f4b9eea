"""Containers that the stand-in makes, changes, looks at and removes on the real Docker daemon."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.offline.plugin_client import (
    NONE,
    OURS,
    Plugin,
    StartFailed,
)

pytestmark = pytest.mark.docker


def test_a_container_runs_as_asked_and_has_no_diff_afterwards(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    asked = server | {"entrypoints": ["/bin/sh", "-c"], "command": ["exec sleep 600"]}
    asked |= {"shmSize": 128, "stopTimeout": 30, "stopSignal": "SIGINT", "memory": 64}
    asked |= {"memorySwap": 64, "hosts": [{"host": "hub", "ip": "127.0.0.1"}], "init": True}
    id, state = containers.create(**asked)
    seen = daemon.inspect_container(id)
    assert seen["State"]["Running"]
    assert seen["Config"]["Env"][0] == "A=b"
    assert seen["Config"]["Labels"] == {"stack": "test"}
    assert seen["HostConfig"]["Binds"] == [f"{OURS}-cache:/cache:rw"]
    assert seen["HostConfig"]["Ulimits"] == [{"Name": "nofile", "Soft": 512, "Hard": 1024}]
    assert seen["HostConfig"]["ShmSize"] == 128 << 20
    assert seen["HostConfig"]["PortBindings"]["8000/tcp"][0]["HostIp"] == "127.0.0.1"
    assert containers.diff(state, **asked).changes == NONE
    refreshed = containers.read(id, state, **containers.check(**asked))
    assert refreshed.id == id
    assert containers.diff(dict(refreshed.properties), **asked).changes == NONE


def test_what_a_container_gets_of_its_host_reads_back_as_written(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    asked = server | {
        "networkMode": "host",
        "securityOpts": ["seccomp=unconfined", "label=disable"],
        "capabilities": {"adds": ["CAP_IPC_LOCK"], "drops": ["CAP_NET_RAW"]},
        "devices": [
            {"hostPath": "/dev/fuse", "containerPath": "/dev/fuse", "permissions": "rw"},
            {"hostPath": "/dev/null"},
        ],
        "mounts": [
            {"type": "bind", "source": "/etc/hosts", "target": "/given", "readOnly": True},
            {"type": "volume", "source": f"{OURS}-cache", "target": "/kernels"},
        ],
        "logDriver": "local",
        "logOpts": {"max-size": "1m", "max-file": "2"},
    }
    del asked["ports"]
    id, state = containers.create(**asked)
    seen = daemon.inspect_container(id)
    host = seen["HostConfig"]
    assert seen["State"]["Running"]
    assert host["NetworkMode"] == "host"
    assert sorted(host["SecurityOpt"]) == ["label=disable", "seccomp=unconfined"]
    assert host["LogConfig"] == {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}}
    assert sorted(mount["Destination"] for mount in seen["Mounts"]) == [
        "/cache", "/given", "/kernels",
    ]  # fmt: skip
    assert containers.diff(state, **asked).changes == NONE
    refreshed = containers.read(id, state, **containers.check(**asked))
    assert containers.diff(dict(refreshed.properties), **asked).changes == NONE
    changed = asked | {"mounts": asked["mounts"][:1]}
    assert list(containers.diff(dict(refreshed.properties), **changed).replaces) == ["mounts"]


def test_a_restart_policy_changes_in_place(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    id, state = containers.create(**server)
    state = containers.update(id, state, **server | {"restart": "no"})
    assert daemon.inspect_container(id)["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert containers.diff(state, **server | {"restart": "no"}).changes == NONE


def test_a_restart_policy_edited_by_hand_is_seen_by_a_refresh(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    id, state = containers.create(**server)
    daemon.update_container(id, restart_policy={"Name": "no", "MaximumRetryCount": 0})
    refreshed = containers.read(id, state, **containers.check(**server))
    assert refreshed.inputs["restart"] == "no"
    assert list(containers.diff(dict(refreshed.properties), **server).diffs) == ["restart"]


def test_a_stopped_container_reads_as_not_running_and_is_replaced_for_its_ports(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    id, state = containers.create(**server)
    daemon.stop(id, timeout=0)
    refreshed = dict(containers.read(id, state).properties)
    assert refreshed["mustRun"] is False
    assert refreshed["exitCode"] == 137
    diff = containers.diff(refreshed, **server)
    assert sorted(diff.diffs) == ["mustRun", "ports"]
    assert list(diff.replaces) == ["ports"]


def test_a_stopped_container_without_ports_is_started_again(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    del server["ports"]
    id, state = containers.create(**server)
    daemon.stop(id, timeout=0)
    refreshed = dict(containers.read(id, state).properties)
    assert list(containers.diff(refreshed, **server).replaces) == []
    containers.update(id, refreshed, **server)
    assert daemon.inspect_container(id)["State"]["Running"]


def test_a_removed_container_reads_as_gone_and_is_deleted_without_a_word(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    id, state = containers.create(**server)
    daemon.remove_container(id, force=True)
    assert containers.read(id, state).id == ""
    containers.delete(id, state)


def test_a_container_that_fails_to_start_is_recorded_and_turns_green_by_an_update(
    containers: Plugin, server: dict[str, Any], daemon: Any
) -> None:
    asked = server | {"command": ["/no/such/program"]}
    with pytest.raises(StartFailed, match=r"Unable to start container: .*no such file") as failure:
        containers.create(**asked)
    id, state = failure.value.id, failure.value.state
    assert daemon.inspect_container(id)["State"]["Status"] == "created"
    assert state["mustRun"] is True
    assert containers.diff(state, **asked).changes == NONE
    containers.update(id, state, **asked)
    assert not daemon.inspect_container(id)["State"]["Running"]


def test_starting_it_fails_again_once_a_refresh_has_seen_it(
    containers: Plugin, server: dict[str, Any]
) -> None:
    asked = server | {"command": ["/no/such/program"]}
    with pytest.raises(StartFailed) as failure:
        containers.create(**asked)
    refreshed = dict(containers.read(failure.value.id, failure.value.state).properties)
    with pytest.raises(StartFailed, match="Unable to start container"):
        containers.update(failure.value.id, refreshed, **asked)


def test_a_name_that_is_taken_is_refused_in_the_daemons_words(
    containers: Plugin, server: dict[str, Any]
) -> None:
    containers.create(**server)
    with pytest.raises(
        RuntimeError,
        match=r"Unable to create container: Error response from daemon: Conflict\. "
        rf"The container name \"/{server['name']}\" is already",
    ):
        containers.create(**server)


@pytest.mark.parametrize(("grace", "exit_code"), [({"destroyGraceSeconds": 20}, "0"), ({}, "137")])
def test_a_container_ends_by_itself_within_its_grace_and_is_killed_without_one(
    containers: Plugin, server: dict[str, Any], daemon: Any, grace: dict[str, Any], exit_code: str
) -> None:
    script = "trap 'sleep 2; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    id, state = containers.create(**server | {"command": ["sh", "-c", script]} | grace)
    next(iter(daemon.logs(id, stream=True, follow=True)))
    containers.delete(id, state)
    (died,) = daemon.events(
        since=0,
        until=f"{time.time():.6f}",
        filters={"container": id, "event": "die"},
        decode=True,
    )
    assert died["Actor"]["Attributes"]["exitCode"] == exit_code
    assert containers.read(id, state).id == ""

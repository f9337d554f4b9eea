"""What the stand-in for the docker plugin knows without any engine: checks and diffs."""

from __future__ import annotations

from typing import Any

import pytest
from pulumi.runtime import proto

from tests.offline.plugin_client import (
    CONTAINER,
    NONE,
    SOME,
    UNKNOWN,
    VOLUME,
    Plugin,
    Start,
    struct,
)


def test_a_preview_needs_no_daemon(start: Start) -> None:
    nowhere = start(CONTAINER, {"host": "unix:///no/such.sock"})
    id, state = nowhere.create(preview=True, name="x", image="y", envs=[UNKNOWN])
    assert id == ""
    assert state["exitCode"] == UNKNOWN
    changed = nowhere.diff(state, name="x", image="z")
    assert list(changed.replaces) == ["image"]


def test_a_daemon_that_is_not_there_is_one_sentence_with_the_fix(start: Start) -> None:
    nowhere = start(VOLUME, {"host": "unix:///no/such.sock"})
    with pytest.raises(RuntimeError) as failure:
        nowhere.create(name="x")
    assert str(failure.value) == (
        "Unable to create volume: cannot connect to the Docker daemon at unix:///no/such.sock (No "
        "such file or directory). Start it (`systemctl start docker`), or name one that runs in "
        "DOCKER_HOST or with `pulumi config set docker:host`."
    )


@pytest.mark.parametrize(
    ("property", "value", "path"),
    [
        ("tmpfs", {"/tmp": ""}, "Container.tmpfs"),
        ("volumes", [{"containerPath": "/x", "fromContainer": "y"}], "volumes.fromContainer"),
    ],
)
def test_a_property_that_would_be_ignored_is_refused(
    containers: Plugin, property: str, value: Any, path: str
) -> None:
    with pytest.raises(ValueError, match="the offline docker plugin does not know ") as refusal:
        containers.check(name="x", image="y", **{property: value})
    assert path in str(refusal.value)


def test_a_provider_setting_that_would_be_ignored_is_refused(containers: Plugin) -> None:
    request = proto.CheckRequest(
        news=struct({"registryAuth": '[{"address":"a","configFile":"b"}]'})
    )
    reasons = [failure.reason for failure in containers.stub.CheckConfig(request).failures]
    assert "registryAuth.configFile" in reasons[0]


def test_the_defaults_are_recorded_as_inputs(containers: Plugin) -> None:
    inputs = containers.check(name="x", image="y")
    assert (inputs["mustRun"], inputs["restart"], inputs["networkMode"]) == (True, "no", "bridge")


@pytest.mark.parametrize(
    ("changed", "replaces"),
    [
        ({"command": ["sleep", "1"]}, True),
        ({"envs": ["A=c"]}, True),
        ({"gpus": "all"}, True),
        ({"shmSize": 128}, True),
        ({"stopTimeout": 30}, True),
        ({"restart": "no"}, False),
        ({"memory": 512}, False),
        ({"destroyGraceSeconds": 30}, False),
    ],
)
def test_which_changes_replace_and_which_do_not(
    containers: Plugin, changed: dict[str, Any], replaces: bool
) -> None:
    old = {"name": "x", "image": "y", "envs": ["A=b"], "restart": "always"}
    diff = containers.diff(containers.check(**old), **old | changed)
    assert diff.changes == SOME
    assert list(diff.diffs) == list(changed)
    assert list(diff.replaces) == (list(changed) if replaces else [])
    assert diff.deleteBeforeReplace is replaces


def test_the_order_of_what_is_a_set_is_no_change_and_that_of_the_command_is_one(
    containers: Plugin,
) -> None:
    old = {
        "name": "x",
        "image": "y",
        "envs": ["A=1", "B=2"],
        "ports": [{"internal": 1, "external": 1}, {"internal": 2, "external": 2}],
    }
    new = old | {"envs": old["envs"][::-1], "ports": old["ports"][::-1]}
    assert containers.diff(containers.check(**old), **new).changes == NONE
    state = containers.check(**old, command=["a", "b"])
    assert containers.diff(state, **old, command=["b", "a"]).changes == SOME


def test_removing_an_environment_from_the_program_shows_no_diff(containers: Plugin) -> None:
    state = containers.check(name="x", image="y", envs=["A=b"], command=["c"], ipcMode="host")
    assert containers.diff(state, name="x", image="y").changes == NONE


def test_an_edited_volume_label_deletes_the_volume_first_and_a_new_name_does_not(
    volumes: Plugin,
) -> None:
    labels = [{"label": "a", "value": "b"}]
    relabelled = volumes.diff({"name": "x"}, name="x", labels=labels)
    assert list(relabelled.replaces) == ["labels"]
    assert relabelled.deleteBeforeReplace
    assert not volumes.diff({"name": "x"}, name="y").deleteBeforeReplace

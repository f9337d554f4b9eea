"""The official docker plugin and ours, side by side: what each records, and takes from the other.

official.yaml has what the official one does. Where it is installed, it is compared with itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

from offline.plugins import write_plugin_dir
from tests.offline.plugin_client import CONTAINER, IMAGE, NONE, OURS, VOLUME, Plugin
from vllm_spark.setup.plugins import is_stand_in, wanted

pytestmark = pytest.mark.docker

CASES = yaml.safe_load((Path(__file__).parent / "official.yaml").read_text())["containers"]
BOTH = ("official", "ours")


class Launchers:
    """Starts either plugin for a resource type, and ends it with the test."""

    def __init__(self, directory: Path) -> None:
        home = Path(os.environ.get("PULUMI_HOME", "~/.pulumi")).expanduser() / "plugins"
        folder = home / f"resource-docker-v{wanted()['docker']}"
        write_plugin_dir(directory, "docker", wanted()["docker"], Path(sys.executable))
        name = "pulumi-resource-docker"
        self._files = {"official": folder / name, "ours": directory / name}
        self.started: list[Plugin] = []

    def __call__(self, which: str, type_: str) -> Plugin:
        file = self._files[which]
        if which == "official" and (not file.exists() or is_stand_in(file)):
            pytest.skip("the official docker plugin is not installed")
        self.started.append(Plugin(file, type_))
        return self.started[-1]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launchers]:
    launchers = Launchers(tmp_path)
    yield launchers
    for plugin in launchers.started:
        plugin.close()


@pytest.fixture
def base(image: str, daemon: Any) -> Iterator[dict[str, Any]]:
    """The inputs of every container of these tests."""
    name = f"{OURS}-both"
    yield {"name": name, "image": image, "command": ["sleep", "600"], "networkMode": "bridge"}
    for container in daemon.containers(all=True, filters={"name": name}):
        daemon.remove_container(container["Id"], force=True, v=True)


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_a_container_is_recorded_and_read_back_as_the_official_plugin_does(
    launch: Launchers, which: str, case: dict[str, Any], base: dict[str, Any], daemon: Any
) -> None:
    plugin, asked = launch(which, CONTAINER), base | case["given"]
    id_, state = plugin.create(**asked)
    assert (daemon.inspect_container(id_)["HostConfig"]["DeviceRequests"] or []) == case["requests"]
    for name, expected in case["records"].items():
        assert _holds(state[name], expected), name
    assert {"networkDatas", "securityOpts"} <= state.keys()
    refreshed = plugin.read(id_, state, **plugin.check(**asked))
    for seen in (state, MessageToDict(refreshed.properties)):
        assert list(plugin.diff(seen, **asked).diffs) == case.get("diff", [])
    plugin.delete(id_, state)


@pytest.mark.parametrize("first", BOTH)
@pytest.mark.parametrize(
    "case", [case for case in CASES if "diff" not in case], ids=lambda case: str(case["name"])
)
def test_a_stack_goes_from_one_plugin_to_the_other_without_a_change(
    launch: Launchers, first: str, case: dict[str, Any], base: dict[str, Any]
) -> None:
    one = launch(first, CONTAINER)
    other = launch("ours" if first == "official" else "official", CONTAINER)
    asked = base | case["given"]
    id_, state = one.create(**asked)
    refreshed = MessageToDict(one.read(id_, state, **one.check(**asked)).properties)
    for seen in (state, refreshed):
        assert other.diff(seen, **asked).changes == NONE
        again = other.read(id_, seen, **other.check(**asked))
        assert one.diff(MessageToDict(again.properties), **asked).changes == NONE
    other.delete(id_, state)


@pytest.mark.parametrize("first", BOTH)
def test_an_image_and_a_volume_go_from_one_plugin_to_the_other_too(
    launch: Launchers, first: str, image: str, daemon: Any
) -> None:
    second = "ours" if first == "official" else "official"
    volume = {"name": f"{OURS}-both"}
    for type_, asked in ((IMAGE, {"name": image, "keepLocally": True}), (VOLUME, volume)):
        one, other = launch(first, type_), launch(second, type_)
        id_, state = one.create(**asked)
        assert other.diff(state, **asked).changes == NONE
        seen = other.read(id_, state, **other.check(**asked))
        assert seen.id == id_
        assert one.diff(MessageToDict(seen.properties), **asked).changes == NONE
    assert daemon.inspect_volume(volume["name"])


def _holds(found: Any, expected: Any) -> bool:
    """Whether `found` has at least what is expected; objects may have more keys."""
    if isinstance(expected, dict):
        return all(_holds(found.get(key), value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_holds, found, expected))
    return bool(found == expected)

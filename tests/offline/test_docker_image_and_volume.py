"""Images and volumes on the real Docker daemon, pulled from a registry of one image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.offline.plugin_client import (
    IMAGE,
    NONE,
    OURS,
    Plugin,
    Start,
    secret,
)
from tests.offline.registry import PASSWORD, USER, registry

pytestmark = pytest.mark.docker


def test_an_image_that_is_there_is_not_pulled(images: Plugin, image: str, daemon: Any) -> None:
    id, state = images.create(name=image, keepLocally=True)
    assert state["imageId"] == daemon.inspect_image(image)["Id"]
    assert id == state["imageId"] + image
    assert images.diff(state, name=image, keepLocally=True).changes == NONE
    assert list(images.diff(state, name=image).replaces) == []
    images.delete(id, state)
    assert daemon.inspect_image(image)


def test_an_image_that_is_not_kept_goes_with_the_resource(
    images: Plugin, image: str, daemon: Any
) -> None:
    daemon.tag(image, f"{OURS}-other", "latest")
    id, state = images.create(name=f"{OURS}-other:latest")
    images.delete(id, state)
    assert not daemon.images(f"{OURS}-other")
    assert images.read(id, state).id == ""
    images.delete(id, state)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with registry() as address:
        yield address


@pytest.fixture(scope="module")
def pulls(start: Start, hub: str) -> Plugin:
    """Images from the registry, with its login in the provider's settings."""
    login = {"address": hub, "username": USER, "password": secret(PASSWORD)}
    return start(IMAGE, {"registryAuth": [login]})


def test_an_image_is_pulled_with_the_providers_login(pulls: Plugin, hub: str, daemon: Any) -> None:
    name = f"{hub}/offline-test-pulled:good"
    id, state = pulls.create(name=name)
    assert daemon.inspect_image(name)["Config"]["Labels"] == {"tag": "good"}
    assert state["repoDigest"].startswith(f"{hub}/offline-test-pulled@sha256:")
    assert f"pulling {name}" in pulls.engine.lines
    assert pulls.diff(state, name=name).changes == NONE
    pulls.delete(id, state)


def test_a_registry_that_wants_a_login_is_not_given_another_ones(images: Plugin, hub: str) -> None:
    with pytest.raises(RuntimeError, match=r"unable to pull image .*: no basic auth credentials"):
        images.create(name=f"{hub}/offline-test-pulled:good")


def test_a_tag_that_does_not_exist_fails_with_the_registrys_reason(pulls: Plugin, hub: str) -> None:
    with pytest.raises(RuntimeError, match=r"manifest unknown|:none: not found"):
        pulls.create(name=f"{hub}/offline-test-pulled:none")


def test_a_pull_that_breaks_off_fails_with_the_reason(pulls: Plugin, hub: str) -> None:
    with pytest.raises(RuntimeError, match=r"unable to find or pull image .*:broken: "):
        pulls.create(name=f"{hub}/offline-test-pulled:broken")


def test_an_image_that_cannot_be_pulled_fails_with_the_registrys_reason(images: Plugin) -> None:
    with pytest.raises(RuntimeError) as failure:
        images.create(name="127.0.0.1:1/offline-test-none:1")
    text = str(failure.value)
    assert text.startswith("Unable to read Docker image into resource: unable to ")
    assert "127.0.0.1:1/offline-test-none:1" in text
    assert "connection refused" in text


def test_a_volume_of_that_name_is_taken_over(volumes: Plugin, daemon: Any) -> None:
    daemon.create_volume(f"{OURS}-models")
    id, state = volumes.create(name=f"{OURS}-models")
    assert id == f"{OURS}-models"
    assert state["driver"] == "local"
    assert state["mountpoint"].endswith(f"/{OURS}-models/_data")
    assert volumes.diff(state, name=f"{OURS}-models").changes == NONE
    volumes.delete(id, state)
    assert volumes.read(id, state).id == ""
    volumes.delete(id, state)


def test_a_volume_in_use_is_not_deleted(
    volumes: Plugin, containers: Plugin, server: dict[str, Any]
) -> None:
    id, state = volumes.create(name=f"{OURS}-cache")
    containers.create(**server)
    with pytest.raises(RuntimeError, match=r"Unable to remove volume: .* volume is in use"):
        volumes.delete(id, state)

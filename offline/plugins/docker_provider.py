"""The substitute for the `docker` plugin: images, volumes and containers on a real Docker daemon.

As in the official plugin, `RemoteImage` pulls an image only if it is missing, and `Volume` adopts
an existing volume of its name. Deleting a volume in use fails at once with the daemon's message;
the official plugin first retries for 30 s.
"""
# ruff: noqa: ARG002  the Resource interface fixes the arguments

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, ClassVar, NoReturn

from docker.errors import NotFound
from pulumi.runtime import proto

from offline.plugins.docker_container import Container
from offline.plugins.docker_daemon import DockerDaemon
from offline.plugins.protocol import Plugin, plain, serve
from offline.plugins.resource import Input, Resource, Say, State, unknown_keys


class RemoteImage(Resource):
    """An image that is pulled. Its id is the image's id followed by the name."""

    type = "docker:index/remoteImage:RemoteImage"
    inputs: ClassVar = {
        "name": Input(required=True, replaces=True),
        "keepLocally": Input(),
        "pullTriggers": Input(replaces=True, unordered=True),
        "platform": Input(replaces=True),
    }
    outputs = ("imageId", "repoDigest")

    def __init__(self, daemon: DockerDaemon) -> None:
        self._daemon = daemon

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Pull it if no image has that name."""
        with self._daemon.client("Unable to read Docker image into resource") as client:
            image = self._daemon.find_image(client, new["name"], new.get("platform"))
        return _seen(image, new)

    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """Read which image has the name now."""
        with self._daemon.client("Error reading docker image") as client:
            image = self._daemon.local_image(client, state["name"])
        return _seen(image, state) if image else None

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Only `keepLocally` changes in place; `delete` reads it."""
        return self.updated(old, new)

    def delete(self, id: str, state: State, say: Say) -> None:
        """Remove the name, and the image with its last name, unless `keepLocally` is set."""
        if state.get("keepLocally"):
            return
        with self._daemon.client("Unable to remove Docker image") as client:
            if self._daemon.local_image(client, state["name"]):
                client.remove_image(state["name"])


def _seen(image: dict[str, Any], state: State) -> tuple[str, State]:
    digests = image["RepoDigests"] or [""]
    own = [it for it in digests if state["name"].startswith(it.partition("@")[0])]
    read = {"imageId": image["Id"], "repoDigest": (own or digests)[0]}
    return image["Id"] + state["name"], state | read


class Volume(Resource):
    """A volume. Its id is its name."""

    type = "docker:index/volume:Volume"
    inputs: ClassVar = {
        "name": Input(required=True, replaces=True),
        "labels": Input(replaces=True, unordered=True, fields={"label": None, "value": None}),
        "driver": Input(replaces=True, sticky=True),
    }
    outputs = ("mountpoint",)

    def __init__(self, daemon: DockerDaemon) -> None:
        self._daemon = daemon

    def deletes_before_replacing(self, old: State, new: State) -> bool:
        """True if both have one name: Docker has one volume per name."""
        return bool(old.get("name") == new["name"])

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Create it, or adopt the volume of that name."""
        labels = {item["label"]: item["value"] for item in new.get("labels") or ()}
        with self._daemon.client("Unable to create volume") as client:
            volume = client.create_volume(new["name"], new.get("driver"), labels=labels)
        return volume["Name"], _read_volume(volume, new)

    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """Inspect it."""
        with self._daemon.client("Unable to inspect volume") as client:
            try:
                return id, _read_volume(client.inspect_volume(id), state)
            except NotFound:
                return None

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Change nothing: no property of a volume can change in place."""
        return self.updated(old, new)

    def delete(self, id: str, state: State, say: Say) -> None:
        """Remove it with its content."""
        with self._daemon.client("Unable to remove volume") as client, suppress(NotFound):
            client.remove_volume(id)


def _read_volume(volume: dict[str, Any], state: State) -> State:
    labels = [{"label": key, "value": text} for key, text in (volume["Labels"] or {}).items()]
    read = {
        "name": volume["Name"],
        "driver": volume["Driver"],
        "mountpoint": volume["Mountpoint"],
        "labels": labels,
    }
    return state | read


class DockerPlugin(Plugin):
    """The provider `docker`."""

    name = "docker"
    accepts_secrets = False
    settings: ClassVar = {
        "host": Input(),
        "registryAuth": Input(fields=dict.fromkeys(("address", "username", "password"))),
        "version": Input(),  # selects the plugin; only the engine reads it
    }

    def __init__(self, version: str, engine_address: str) -> None:
        self.daemon = DockerDaemon()
        resources = (RemoteImage(self.daemon), Volume(self.daemon), Container(self.daemon))
        super().__init__(version, resources, engine_address)

    def CheckConfig(self, request: proto.CheckRequest, context: Any) -> proto.CheckResponse:
        """Refuse provider settings that would be ignored."""
        unknown = unknown_keys(self.settings, _decoded(plain(request.news)))
        failures = [self.unknown(key, f"the provider's {path}") for key, path in unknown]
        return proto.CheckResponse(inputs=request.news, failures=failures)

    def configure(self, config: State) -> None:
        """Set `host` and `registryAuth`."""
        config = _decoded(config)
        self.daemon.configure(config.get("host"), config.get("registryAuth") or [])


def _decoded(config: State) -> State:
    """Decode the provider's settings: those that are not strings arrive as JSON text."""
    auth = config.get("registryAuth")
    return config | {"registryAuth": json.loads(auth)} if isinstance(auth, str) else config


def main(version: str) -> NoReturn:
    """Serve the Pulumi engine that started this process."""
    serve(lambda engine: DockerPlugin(version, engine))

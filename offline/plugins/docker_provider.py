"""The `docker` plugin's stand-in: images, volumes and containers on a real Docker daemon.

`RemoteImage` pulls a name that is not there and leaves one that is alone; `Volume` takes over one
that exists under its name. Both are the official plugin's ways. A volume that is in use fails to
be deleted at once here, with the daemon's reason, where the official one tries for 30 s first.
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
    """An image, pulled. Its id is the image's id with the name behind it."""

    type = "docker:index/remoteImage:RemoteImage"
    inputs: ClassVar = {
        "name": Input(required=True, replaces=True),
        "keepLocally": Input(),
        "pullTriggers": Input(replaces=True, unordered=True),
        "platform": Input(replaces=True),
    }
    outputs = ("imageId", "repoDigest")

    def __init__(self, engine: DockerDaemon) -> None:
        self._engine = engine

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Pull it, if nothing here has that name."""
        with self._engine.client("Unable to read Docker image into resource") as client:
            image = self._engine.find_image(client, new["name"], new.get("platform"), say)
        return _seen(image, new)

    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """See which image has the name now."""
        with self._engine.client("Error reading docker image") as client:
            image = self._engine.local_image(client, state["name"])
        return _seen(image, state) if image else None

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Only `keepLocally` gets here; it matters when the image goes."""
        return self.updated(old, new)

    def delete(self, id: str, state: State, say: Say) -> None:
        """Take the name off the image, and the image with its last name, unless it is kept."""
        if state.get("keepLocally"):
            return
        with self._engine.client("Unable to remove Docker image") as client:
            if self._engine.local_image(client, state["name"]):
                client.remove_image(state["name"])

    def cancel(self) -> None:
        """Stop pulling."""
        self._engine.cancel()


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

    def __init__(self, engine: DockerDaemon) -> None:
        self._engine = engine

    def deletes_before_replacing(self, old: State, new: State) -> bool:
        """Under one name there is one volume."""
        return bool(old.get("name") == new["name"])

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Create it, or take the one of that name."""
        labels = {item["label"]: item["value"] for item in new.get("labels") or ()}
        with self._engine.client("Unable to create volume") as client:
            volume = client.create_volume(new["name"], new.get("driver"), labels=labels)
        return volume["Name"], _read_volume(volume, new)

    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """Look at it."""
        with self._engine.client("Unable to inspect volume") as client:
            try:
                return id, _read_volume(client.inspect_volume(id), state)
            except NotFound:
                return None

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Nothing about a volume changes in place."""
        return self.updated(old, new)

    def delete(self, id: str, state: State, say: Say) -> None:
        """Remove it with all that is in it."""
        with self._engine.client("Unable to remove volume") as client, suppress(NotFound):
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
        "version": Input(),  # which plugin the engine is to take: its own business
    }

    def __init__(self, version: str, engine_address: str) -> None:
        self.engine = DockerDaemon()
        resources = (RemoteImage(self.engine), Volume(self.engine), Container(self.engine))
        super().__init__(version, resources, engine_address)

    def CheckConfig(self, request: proto.CheckRequest, context: Any) -> proto.CheckResponse:
        """Refuse a setting of the provider that would be ignored."""
        unknown = unknown_keys(self.settings, _decoded(plain(request.news)))
        failures = [self.unknown(key, f"the provider's {path}") for key, path in unknown]
        return proto.CheckResponse(inputs=request.news, failures=failures)

    def configure(self, config: State) -> None:
        """Take `host` and `registryAuth`."""
        config = _decoded(config)
        self.engine.configure(config.get("host"), config.get("registryAuth") or [])


def _decoded(config: State) -> State:
    """A provider's settings that are not strings come as JSON texts."""
    auth = config.get("registryAuth")
    return config | {"registryAuth": json.loads(auth)} if isinstance(auth, str) else config


def main(version: str) -> NoReturn:
    """Serve the engine that started this process."""
    serve(lambda engine: DockerPlugin(version, engine))

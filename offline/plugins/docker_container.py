"""`docker:index/container:Container`: a container's life, as in the official plugin.

An update in place never inspects the container. If a start has failed, the container is recorded as
failed, and the next `up` without a refresh finds nothing to change and succeeds with nothing
running. This is the official plugin's behaviour; the program's health gate has to catch it.
"""
# ruff: noqa: ARG002  the Resource interface fixes the arguments

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

from docker.errors import APIError, NotFound

from offline.plugins.container_form import PORT, from_docker, restart_policy, to_bytes, to_docker
from offline.plugins.docker_daemon import DockerDaemon, daemon_error
from offline.plugins.resource import Input, Resource, Say, State, Unfinished

DEVICE = {"hostPath": None, "containerPath": None, "permissions": "rwm"}
MOUNT = dict.fromkeys(("type", "source", "target", "readOnly"))
VOLUME = dict.fromkeys(("containerPath", "hostPath", "volumeName", "readOnly"))
REQUEST = dict.fromkeys(("driver", "count", "deviceIds", "capabilities", "options"))


class Container(Resource):
    """A container. Its id is Docker's id."""

    type = "docker:index/container:Container"
    inputs: ClassVar = {
        "name": Input(required=True, replaces=True),
        "image": Input(required=True, replaces=True),
        "command": Input(replaces=True, sticky=True),
        "entrypoints": Input(replaces=True, sticky=True),
        "envs": Input(replaces=True, sticky=True, unordered=True),
        "labels": Input(
            replaces=True, sticky=True, unordered=True, fields={"label": None, "value": None}
        ),
        "user": Input(replaces=True, sticky=True),
        "workingDir": Input(replaces=True, sticky=True),
        "ports": Input(replaces=True, unordered=True, fields=PORT),
        "volumes": Input(replaces=True, unordered=True, fields=VOLUME),
        "mounts": Input(replaces=True, unordered=True, fields=MOUNT),
        "hosts": Input(replaces=True, unordered=True, fields={"host": None, "ip": None}),
        "ulimits": Input(
            replaces=True, unordered=True, fields=dict.fromkeys(("name", "soft", "hard"))
        ),
        "capabilities": Input(replaces=True, unordered=True, fields={"adds": None, "drops": None}),
        "devices": Input(replaces=True, unordered=True, fields=DEVICE),
        "gpus": Input(replaces=True),
        "deviceRequests": Input(replaces=True, fields=REQUEST),
        "ipcMode": Input(replaces=True, sticky=True),
        "shmSize": Input(replaces=True, sticky=True),
        "networkMode": Input(replaces=True, default="bridge"),
        "securityOpts": Input(replaces=True, sticky=True, unordered=True),
        "logDriver": Input(replaces=True, sticky=True),
        "logOpts": Input(replaces=True),
        "stopSignal": Input(replaces=True, sticky=True),
        "stopTimeout": Input(replaces=True, sticky=True),
        "init": Input(sticky=True),
        "restart": Input(default="no"),
        "maxRetryCount": Input(),
        "memory": Input(),
        "memorySwap": Input(),
        "start": Input(default=True),
        "mustRun": Input(default=True),
        "destroyGraceSeconds": Input(),
        "removeVolumes": Input(default=True),
        # The official plugin would replace a container without them.
        "waitTimeout": Input(default=60),
        "containerReadRefreshTimeoutMilliseconds": Input(default=15000),
    }
    outputs = ("exitCode",)

    def __init__(self, daemon: DockerDaemon) -> None:
        self._daemon = daemon

    def deletes_before_replacing(self, old: State, new: State) -> bool:
        """Always: old and new share a name, ports and memory."""
        return True

    def create(self, new: State, say: Say) -> tuple[str, State]:
        """Create it, and start it unless `start` is false."""
        with self._daemon.client(f"Unable to create container with image {new['image']}") as client:
            self._daemon.find_image(client, new["image"], None)
        with self._daemon.client("Unable to create container") as client:
            id = client.create_container_from_config(to_docker(new), new["name"])["Id"]
            if new["start"]:
                self._start(client, id, new)
            return id, from_docker(client.inspect_container(id), new)

    def read(self, id: str, state: State) -> tuple[str, State] | None:
        """Inspect it."""
        with self._daemon.client("Unable to inspect container") as client:
            try:
                return id, from_docker(client.inspect_container(id), state)
            except NotFound:
                return None

    def update(self, id: str, old: State, new: State, say: Say) -> State:
        """Start it if it should run and does not; update restart policy and memory."""
        state = self.updated(old, new)
        with self._daemon.client("Unable to update a container") as client:
            if new["mustRun"] and not old.get("mustRun", True) and new["start"]:
                self._start(client, id, state)
            settings = ("restart", "maxRetryCount", "memory", "memorySwap")
            if any(name in settings for name in self.changed(old, new)):
                client.update_container(
                    id,
                    mem_limit=to_bytes(new.get("memory")),
                    memswap_limit=to_bytes(new.get("memorySwap")),
                    restart_policy=restart_policy(new),
                )
        return state

    def delete(self, id: str, state: State, say: Say) -> None:
        """Stop it within `destroyGraceSeconds` (if unset, kill it), then remove it."""
        failing = f"Error deleting container {id[:12]}"
        with self._daemon.client(failing) as client, suppress(NotFound):
            client.stop(id, timeout=state.get("destroyGraceSeconds") or 0)
            try:
                client.remove_container(id, v=state.get("removeVolumes", True), force=True)
            except APIError as error:
                if "is already in progress" not in str(error.explanation):
                    raise
                client.wait(id, condition="removed")

    def _start(self, client: Any, id: str, state: State) -> None:
        try:
            client.start(id)
        except APIError as error:
            raise Unfinished(
                f"Unable to start container: {daemon_error(error)}", id, state
            ) from error

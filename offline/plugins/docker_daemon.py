"""The Docker daemon that the stand-in for the `docker` plugin works on, and images in it.

Two resources need an image to be there: the one that pulls it, and the container made from it,
which the official plugin lets pull it too. And every deed can meet a daemon that is not there, so
the sentence about it is written once, here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import docker
from docker.auth import convert_to_hostname, resolve_index_name, resolve_repository_name
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from offline.plugins.resource import Refusal, Say

GIB = 1 << 30
LOCAL_SOCKET = "unix:///var/run/docker.sock"
SECONDS_A_DEED_MAY_TAKE = 600  # removing a container with a large file system is slow


class _NoImage(Exception):
    """An image is not there and cannot be had."""


class DockerDaemon:
    """Where the daemon is and how to log in to registries. Connects for each deed anew."""

    def __init__(self) -> None:
        self.host: str | None = None
        self._logins: dict[str, Mapping[str, str]] = {}
        self._cancelled = threading.Event()

    def configure(self, host: str | None, logins: list[Mapping[str, str]]) -> None:
        """Take a `docker:host` (None: DOCKER_HOST, else the local socket) and `registryAuth`."""
        self.host = host
        self._logins = {
            resolve_index_name(convert_to_hostname(login["address"])): login for login in logins
        }

    def cancel(self) -> None:
        """Stop pulling."""
        self._cancelled.set()

    @contextmanager
    def client(self, failing: str) -> Iterator[Any]:
        """A `docker.APIClient`; what the daemon refuses becomes a `Refusal` that opens `failing`.

        Any, because its types cover half of it.
        """
        settings: dict[str, Any] = {"base_url": LOCAL_SOCKET, **kwargs_from_env()}
        if self.host:
            settings["base_url"] = self.host
        try:
            client = docker.APIClient(
                **settings, timeout=SECONDS_A_DEED_MAY_TAKE, use_ssh_client=True
            )
            try:
                yield client
            finally:
                client.close()
        except APIError as error:
            raise Refusal(f"{failing}: {daemon_error(error)}") from error
        except _NoImage as error:
            raise Refusal(f"{failing}: {error}") from error
        except (DockerException, RequestException) as error:
            raise Refusal(
                f"{failing}: cannot connect to the Docker daemon at {settings['base_url']} "
                f"({_root_cause(error)}). Start it (`systemctl start docker`), or name one that "
                f"runs in DOCKER_HOST or with `pulumi config set docker:host`."
            ) from error

    def find_image(self, client: Any, name: str, platform: str | None, say: Say) -> dict[str, Any]:
        """What the daemon knows of image `name`, pulled only if it is not there at all."""
        found = self.local_image(client, name)
        if not found:
            self._pull(client, name, platform, say)
            found = self.local_image(client, name)
        if not found:
            raise _NoImage(f"unable to find or pull image {name}")
        return found

    def local_image(self, client: Any, name: str) -> dict[str, Any] | None:
        """The same, None if it is not there."""
        try:
            return dict(client.inspect_image(name))
        except ImageNotFound:
            return None

    def _pull(self, client: Any, name: str, platform: str | None, say: Say) -> None:
        """Pull `name`, saying how far it is. The official plugin pulls in silence."""
        login = self._logins.get(resolve_repository_name(name)[0], {})
        say(f"pulling {name}")
        try:
            events = client.pull(
                name,
                platform=platform,
                auth_config={key: login[key] for key in ("username", "password") if key in login},
                stream=True,
                decode=True,
            )
        except APIError as error:
            raise _NoImage(f"unable to pull image {name}: {daemon_error(error)}") from error
        sizes: dict[str, int] = {}
        loaded: dict[str, int] = {}
        shown = ""
        for event in events:
            if self._cancelled.is_set():
                raise _NoImage(f"pulling image {name} was cancelled")
            if "error" in event:
                raise _NoImage(f"unable to find or pull image {name}: {event['error']}")
            layer, detail = event.get("id", ""), event.get("progressDetail") or {}
            if event["status"] == "Downloading":
                sizes[layer], loaded[layer] = detail.get("total", 0), detail.get("current", 0)
            elif event["status"] == "Download complete" and layer in sizes:
                loaded[layer] = sizes[layer]
            line = f"pulling {name}: {_gib(loaded)} of {_gib(sizes)} GiB known so far"
            if sizes and line != shown:
                say(line)
                shown = line


def _gib(sizes: dict[str, int]) -> str:
    return f"{sum(sizes.values()) / GIB:.1f}"


def daemon_error(error: APIError) -> str:
    """The daemon's own words."""
    return f"Error response from daemon: {error.explanation or error}"


def _root_cause(error: BaseException) -> str:
    """What the operating system said, at the end of the chain of wrappers around it."""
    text = str(error)
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.strerror:
            text = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return text

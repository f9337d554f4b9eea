"""The Docker daemon that the substitute for the `docker` plugin uses, and the images in it.

Two resources pull a missing image: `RemoteImage`, and `Container`, as in the official plugin. Every
operation may find no daemon; the message for that case is here, once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from docker.auth import convert_to_hostname, resolve_index_name, resolve_repository_name
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from offline.plugins.resource import Refusal, Say
from vllm_spark.docker_host.connection import DEFAULT_SOCKET, Daemon, root_cause
from vllm_spark.errors import DockerUnavailable

GIB = 1 << 30
LONGEST_OPERATION_SECONDS = 600  # removing a container with a large file system is slow


class _NoImage(Exception):
    """An image is missing and cannot be pulled."""


class DockerDaemon:
    """The daemon's address and the logins of registries. Each operation opens a new connection."""

    def __init__(self) -> None:
        self.host: str | None = None
        self._logins: dict[str, Mapping[str, str]] = {}
        self._cancelled = threading.Event()

    def configure(self, host: str | None, logins: list[Mapping[str, str]]) -> None:
        """Set `docker:host` (None: DOCKER_HOST, else the local socket) and `registryAuth`."""
        self.host = host
        self._logins = {
            resolve_index_name(convert_to_hostname(login["address"])): login for login in logins
        }

    def cancel(self) -> None:
        """Stop pulling."""
        self._cancelled.set()

    @contextmanager
    def client(self, failing: str) -> Iterator[Any]:
        """A `docker.APIClient`. Its errors become a `Refusal` whose text starts with `failing`.

        The type is Any, because docker-py's stubs are incomplete.
        """
        settings = kwargs_from_env()
        address = self.host or settings.get("base_url") or DEFAULT_SOCKET
        daemon = Daemon(address, "the docker plugin", tls=settings.get("tls"))
        try:
            client = daemon.connect(LONGEST_OPERATION_SECONDS).api
            try:
                yield client
            finally:
                client.close()
        except APIError as error:
            raise Refusal(f"{failing}: {daemon_error(error)}") from error
        except _NoImage as error:
            raise Refusal(f"{failing}: {error}") from error
        except DockerUnavailable as error:
            raise Refusal(f"{failing}: {error}") from error
        except (DockerException, RequestException) as error:
            raise Refusal(
                f"{failing}: cannot connect to the Docker daemon at {address} "
                f"({root_cause(error)}). Start it (`systemctl start docker`), or name one that "
                f"runs in DOCKER_HOST or with `pulumi config set docker:host`."
            ) from error

    def find_image(self, client: Any, name: str, platform: str | None, say: Say) -> dict[str, Any]:
        """The inspection of image `name`, which is pulled only if it is missing."""
        found = self.local_image(client, name)
        if not found:
            self._pull(client, name, platform, say)
            found = self.local_image(client, name)
        if not found:
            raise _NoImage(f"unable to find or pull image {name}")
        return found

    def local_image(self, client: Any, name: str) -> dict[str, Any] | None:
        """The inspection of image `name`; None if it is missing."""
        try:
            return dict(client.inspect_image(name))
        except ImageNotFound:
            return None

    def _pull(self, client: Any, name: str, platform: str | None, say: Say) -> None:
        """Pull `name` and show progress, which the official plugin does not."""
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
    """The daemon's own message."""
    return f"Error response from daemon: {error.explanation or error}"

"""Fetches a repository of the hub into the cache, in a container that ends with its command.

A killed command may leave its container behind, still downloading. The next fetch of the same
server removes that container, and so does the removal of the stack. The downloaded files stay and
are not fetched again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from docker.errors import APIError

from vllm_spark.deployment.repositories import Repository
from vllm_spark.deployment.serving import CACHE_PATH
from vllm_spark.deployment.tenants import Identity
from vllm_spark.docker_host.connection import connect, docker_errors, resolve
from vllm_spark.docker_host.one_shot import OneShot
from vllm_spark.errors import FetchError
from vllm_spark.in_image import script

LABEL = "vllm-spark.fetch"
"""The label of containers that fetch; its value is the repository."""

LIMIT_SECONDS = 12 * 3600.0
"""Enough for 700 GB at 16 MB/s. The script itself gives up earlier if no data arrives."""

_LAST_LINES = 4


def proxies() -> dict[str, str]:
    """The shell's proxies, as variables for a container of a daemon on this machine.

    A proxy that listens on the loopback of this machine is left out: a container has its own.
    """
    if not resolve().is_local_socket:
        return {}
    return {
        f"{scheme.upper()}_PROXY": given
        for scheme, given in getproxies_environment().items()
        if scheme == "no" or (scheme in ("http", "https", "all") and not _on_loopback(given))
    }


def _on_loopback(proxy: str) -> bool:
    host = urlsplit(proxy if "://" in proxy else f"//{proxy}").hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True)
class Fetch:
    """One repository for one server. `environment` are mirrors, proxies and the hub's token."""

    identity: Identity
    image: str
    cache: str
    repository: Repository
    environment: Mapping[str, str]

    def run(self) -> str:
        """Fetch, and return the commit that is now in the cache. Prints progress line by line.

        FetchError if the fetch fails, DockerError if the daemon does, Interrupted after Ctrl-C.
        """
        with docker_errors():
            self.stop()
            last: deque[str] = deque(maxlen=_LAST_LINES)

            def report(line: str) -> None:
                last.append(line)
                print(line, flush=True)

            shot = OneShot(
                image=self.image,
                program=script("fetch_weights"),
                arguments=self._arguments,
                labels={**self.identity.labels, LABEL: self.repository.id},
                environment={**proxies(), "HF_HUB_CACHE": CACHE_PATH, **self.environment},
                volumes=[(self.cache, CACHE_PATH, "rw")],
                network=True,
            )
            try:
                commit = shot.run(connect(), limit_seconds=LIMIT_SECONDS, report=report)
            except TimeoutError:
                raise FetchError(
                    f"{self.repository.id} was not fetched within {LIMIT_SECONDS / 3600:.0f} h\n"
                    "  fix: repeat the command; what was fetched is kept"
                ) from None
        if not commit:
            raise FetchError("\n".join([f"{self.repository.id} was not fetched", *last]))
        return commit.rpartition("\n")[2]

    def stop(self) -> None:
        """Remove the container that an earlier, killed fetch left behind."""
        api = connect().api
        labels = {**self.identity.labels, LABEL: self.repository.id}
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        for left in api.containers(all=True, filters=filters):
            with suppress(APIError):  # it has ended in the meantime
                api.remove_container(left["Id"], force=True)

    @property
    def _arguments(self) -> list[str]:
        repository = self.repository
        revision = [repository.revision] if repository.revision is not None else []
        return [repository.id, *revision, *([] if repository.weights else ["--without-weights"])]

"""The one way to a Docker daemon: which one it is, who says so, and a client of it.

The daemon is found as the docker CLI finds it: DOCKER_HOST, then DOCKER_CONTEXT, then the context
in use (rootless Docker makes one), then the default socket. Every part of this project resolves
here, so that the gate, the preflight, the commands and the Pulumi provider cannot talk to different
daemons; the docker CLI, run as a child, comes to the same answer by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
from docker.context import ContextAPI
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from vllm_spark.errors import DockerRefused, DockerUnavailable

DEFAULT_SOCKET = "unix:///var/run/docker.sock"

ANSWER_SECONDS = 60.0
"""The limit of one read of an answer."""

UNANSWERED = (DockerException, RequestException, DockerUnavailable)
"""What a question to the daemon may raise. Once connected, docker-py lets the errors of requests
through."""


@dataclass(frozen=True)
class Daemon:
    """Where a daemon is. `source` completes the sentence "... says so": DOCKER_HOST, say."""

    address: str
    source: str
    context: str | None = None
    """The name of the Docker context that decides, None where no context does."""
    tls: TLSConfig | None = None

    def __str__(self) -> str:
        return f"{self.address} ({self.source})"

    @property
    def is_local_socket(self) -> bool:
        """Whether the daemon is reached through a socket of this machine."""
        return self.address.startswith("unix://")

    def connect(self, timeout: float = ANSWER_SECONDS) -> docker.DockerClient:
        """A client, once the daemon has told its version. Raises `UNANSWERED`."""
        return docker.DockerClient(
            base_url=self.address,
            tls=self.tls or False,
            timeout=int(timeout),
            use_ssh_client=self.address.startswith("ssh://"),
        )


def resolve() -> Daemon:
    """The daemon that the docker CLI would talk to. DockerUnavailable for a broken context."""
    given: Mapping[str, Any] = kwargs_from_env()
    if "base_url" in given:
        return Daemon(given["base_url"], "DOCKER_HOST", tls=given.get("tls"))
    name = os.environ.get("DOCKER_CONTEXT") or None
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:  # docker-py raises bare Exceptions for a context that is broken
        raise _no_such_context(name or "in use", str(error)) from error
    if context is None:
        raise _no_such_context(name or "in use", "there is none of this name")
    if context.Name == "default":
        return Daemon(DEFAULT_SOCKET, "the default socket", tls=given.get("tls"))
    source = f"the Docker context {context.Name}"
    return Daemon(str(context.Host), source, context.Name, context.TLSConfig)


def connect(timeout: float = ANSWER_SECONDS) -> docker.DockerClient:
    """A client of the resolved daemon. DockerUnavailable if it does not answer."""
    with docker_errors():
        return resolve().connect(timeout)


@contextmanager
def docker_errors() -> Iterator[None]:
    """Turn what docker-py raises into a DockerError that names the daemon and the fix."""
    try:
        yield
    except DockerUnavailable:
        raise
    except APIError as error:
        raise DockerRefused(
            f"the Docker daemon refuses: {error.explanation or error}\n"
            "  fix: see its log (`journalctl -u docker`), then repeat"
        ) from error
    except UNANSWERED as error:
        daemon, why = resolve(), root_cause(error)
        raise DockerUnavailable(
            f"no Docker daemon answers at {daemon}: {why}\n  fix: {_fix(daemon, why)}"
        ) from error


def root_cause(error: BaseException) -> str:
    """What the operating system said, at the end of the chain of wrappers around it."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            text = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return text


def _fix(daemon: Daemon, why: str) -> str:
    if daemon.source == "DOCKER_HOST":
        return "start it there, or unset DOCKER_HOST to use the daemon of this machine"
    if daemon.context is not None:
        return "start it, or choose another context: `docker context use default`"
    if "Permission denied" in why:
        return "`sudo usermod -aG docker $USER`, then log in again"
    return "start it: `sudo systemctl start docker`"


def _no_such_context(name: str, why: str) -> DockerUnavailable:
    return DockerUnavailable(
        f"the Docker context {name} cannot be used: {why}\n"
        "  fix: `docker context ls` lists them; unset DOCKER_CONTEXT, or `docker context use NAME`"
    )

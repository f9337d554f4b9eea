"""The one way to a Docker daemon: its address, which setting chose it, and a client.

The daemon is found as the docker CLI finds it: DOCKER_HOST, then DOCKER_CONTEXT, then the context
in use (rootless Docker makes one), then the default socket. Every part of this project resolves it
here, so that the gate, the preflight, the commands and the Pulumi provider cannot talk to different
daemons. The docker CLI, run as a child process, finds the same daemon by itself.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, TLSParameterError
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from vllm_spark.docker_host.interruption import GRACE_SECONDS, until_interrupted
from vllm_spark.errors import DockerRefused, DockerUnavailable, Interrupted

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
SOCKET = "the default socket"
"""The `Daemon.source` of a daemon that no setting chose."""

ANSWER_SECONDS = 60.0
"""The time limit of one read from the daemon."""

NO_DAEMON = "ssh://no-docker.invalid"
"""What a preview calls the daemon where none answers. Nothing connects to it."""

_KNOWN_API = "1.51"
"""The API of Docker 28. A newer daemon answers in the form of the version that a request names.
docker-py would name the daemon's newest, and since 1.52 an image's inspection leaves out what is
empty (seen with moby v2.0.0-beta.24, Docker 29; tests/data/docker)."""

UNANSWERED = (DockerException, RequestException, DockerUnavailable)
"""The exceptions of a request to the daemon. After it has connected, docker-py does not wrap the
exceptions of the `requests` library."""

UNHEARD = (*UNANSWERED, Interrupted)
"""For what goes on after Ctrl-C: threads in the background, and cleaning up."""


@dataclass(frozen=True)
class Daemon:
    """The address of a daemon, and `source`, the setting that chose it, such as DOCKER_HOST."""

    address: str
    source: str
    context: str | None = None
    """The name of the Docker context that chose the daemon; None if no context did."""
    tls: TLSConfig | None = None

    def __str__(self) -> str:
        return f"{self.address} ({self.source})"

    @property
    def is_local_socket(self) -> bool:
        """Whether the daemon is reached through a socket of this machine."""
        return self.address.startswith("unix://")

    def connect(self, timeout: float = ANSWER_SECONDS) -> docker.DockerClient:
        """A client, after the daemon has reported its version. Raises `UNANSWERED`.

        Ctrl-C ends every request of the client, with Interrupted.
        """
        client = self._client(timeout, _KNOWN_API)
        served = client.api.version(api_version=False)
        self._check_variable(served)
        oldest, newest = served["MinAPIVersion"], served["ApiVersion"]
        agreed = max(oldest, min(newest, _KNOWN_API, key=_numbers), key=_numbers)
        if agreed == _KNOWN_API:
            return client
        client.close()
        return self._client(timeout, agreed)

    def _client(self, timeout: float, api_version: str) -> docker.DockerClient:
        client = docker.DockerClient(
            base_url=self.address,
            version=api_version,
            tls=self.tls or False,
            timeout=int(timeout),
            use_ssh_client=self.address.startswith("ssh://"),
        )
        send: Any = client.api.send

        def heard(*request: Any, **options: Any) -> Any:
            return until_interrupted(partial(send, *request, **options), grace=GRACE_SECONDS)

        client.api.send = heard  # type: ignore[method-assign]
        return client

    def _check_variable(self, served: Mapping[str, Any]) -> None:
        """DockerUnavailable if DOCKER_API_VERSION makes the daemon refuse the docker CLI."""
        wanted = os.environ.get("DOCKER_API_VERSION", "").removeprefix("v")
        oldest, newest = served["MinAPIVersion"], served["ApiVersion"]
        if wanted and not _numbers(oldest) <= _numbers(wanted) <= _numbers(newest):
            raise DockerUnavailable(
                f"DOCKER_API_VERSION is {wanted}, and the Docker daemon at {self}, which is "
                f"{served['Version']}, takes {oldest} to {newest}\n"
                "  fix: unset DOCKER_API_VERSION: every client agrees on a version by itself"
            )


def resolve() -> Daemon:
    """The daemon that the docker CLI would talk to. DockerUnavailable for a broken context."""
    host = os.environ.get("DOCKER_HOST")
    name = os.environ.get("DOCKER_CONTEXT") or _context_in_use()
    if not host and name != "default":
        return _of_context(name)
    try:
        tls = kwargs_from_env().get("tls")
    except TLSParameterError as error:
        raise DockerUnavailable(
            "DOCKER_TLS_VERIFY or DOCKER_CERT_PATH is set, and the certificates cannot be used: "
            f"{error}\n  fix: put ca.pem, cert.pem and key.pem into DOCKER_CERT_PATH, or unset both"
        ) from error
    if host:
        return Daemon(host, "DOCKER_HOST", tls=tls)
    return Daemon(DEFAULT_SOCKET, SOCKET, tls=tls)


def plugin_variables() -> dict[str, str]:
    """The variables with which Pulumi's docker plugin finds the daemon of `resolve`.

    The official plugin does not read which context is in use, and prefers DOCKER_CONTEXT to
    DOCKER_HOST, unlike the docker CLI. DockerUnavailable for a broken context.
    """
    daemon = resolve()
    wanted = {"DOCKER_HOST": daemon.address, "DOCKER_CONTEXT": ""}
    if daemon.source == SOCKET:
        wanted["DOCKER_HOST"] = ""
    return {name: text for name, text in wanted.items() if os.environ.get(name, "") != text}


def preview_variables() -> dict[str, str]:
    """The variables with which `pulumi preview` needs no Docker daemon.

    Where one answers, they are those of `plugin_variables`. Elsewhere, the official docker plugin
    would refuse every preview: when it is configured, it pings any daemon but one behind SSH, to
    which it connects on demand (pulumi-docker 5.1, provider/image.go: configureDockerClient). A
    preview asks the plugin only to compare inputs with the state, so it never connects.
    """
    try:
        connect()
    except DockerUnavailable:
        return {"DOCKER_HOST": NO_DAEMON, "DOCKER_CONTEXT": ""}
    return plugin_variables()


def _numbers(version: str) -> tuple[int, ...]:
    """A version of the API, for comparison; () if it is none."""
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+\.\d+", version) else ()


def _config_folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()


def _context_in_use() -> str:
    """The context that `docker context use` chose; none if the config cannot be read."""
    try:
        config = json.loads((_config_folder() / "config.json").read_text())
        return str(config.get("currentContext") or "default")
    except (OSError, ValueError, AttributeError):
        return "default"


def _of_context(name: str) -> Daemon:
    """The daemon of a context. DockerUnavailable if the context is missing or broken.

    It is read here because docker-py finds contexts only if there is a config.json. The layout is
    that of docker/cli, cli/context/store.
    """
    hashed = hashlib.sha256(name.encode()).hexdigest()
    folder = _config_folder() / "contexts"
    try:
        meta = json.loads((folder / "meta" / hashed / "meta.json").read_text())
        endpoint = meta["Endpoints"]["docker"]
        address, unverified = endpoint.get("Host"), bool(endpoint.get("SkipTLSVerify"))
        tls = _tls(folder / "tls" / hashed / "docker", verify=not unverified)
    except FileNotFoundError:
        raise _no_such_context(name, "there is none of this name") from None
    except KeyError:
        raise _no_such_context(name, "it has no Docker endpoint") from None
    except (OSError, ValueError, TypeError, AttributeError, TLSParameterError) as error:
        raise _no_such_context(name, str(error)) from error
    return Daemon(address or DEFAULT_SOCKET, f"the Docker context {name}", name, tls)


def _tls(folder: Path, *, verify: bool) -> TLSConfig | None:
    """The TLS material of a context's endpoint; None if it has none and does not ask for TLS."""
    ca, cert, key = (folder / f"{part}.pem" for part in ("ca", "cert", "key"))
    if not folder.is_dir() and verify:
        return None
    pair = (str(cert), str(key)) if cert.exists() or key.exists() else None
    return TLSConfig(pair, str(ca) if ca.exists() else None, verify)


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
    """The operating system's message, from the end of the chain of exceptions."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            text = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return text


def _fix(daemon: Daemon, why: str) -> str:
    if "Permission denied" in why and daemon.is_local_socket:
        return _group_fix()
    if daemon.address == f"unix://{rootless_socket()}":
        return "start it: `systemctl --user start docker`"
    if daemon.source == "DOCKER_HOST":
        return "start it there, or unset DOCKER_HOST to use the daemon of this machine"
    if daemon.context is not None:
        return "start it, or choose another context: `docker context use default`"
    if rootless_socket().is_socket():
        return f"export DOCKER_HOST=unix://{rootless_socket()}: rootless Docker listens there"
    return "start it: `sudo systemctl start docker`"


def rootless_socket() -> Path:
    """Where the rootless Docker of this user listens, if there is one."""
    return Path(f"/run/user/{os.getuid()}/docker.sock")


def _group_fix() -> str:
    """Groups count from the next login on, so being in the list of members is not enough."""
    with suppress(KeyError):
        if pwd.getpwuid(os.getuid()).pw_name in grp.getgrnam("docker").gr_mem:
            return "you are in the group docker since your last login: log in again"
    return "`sudo usermod -aG docker $USER`, then log in again"


def _no_such_context(name: str, why: str) -> DockerUnavailable:
    return DockerUnavailable(
        f"the Docker context {name} cannot be used: {why}\n"
        "  fix: `docker context ls` lists them; unset DOCKER_CONTEXT, or `docker context use NAME`"
    )

"""A fake Docker daemon: a small HTTP server on a unix socket that keeps containers as plain state.

The real docker-py and the real connection code reach it through DOCKER_HOST, so fast tests run all
code that asks Docker. It serves the endpoints that this project uses, with the answers of a Docker
that tests/record_docker.py has recorded. Nothing in it sleeps: a request or a test changes the
state, and each change wakes all waiting threads.

A fault is a function that handles a request instead of the normal answer: `refuses`,
`never_answers`, `hangs_up`, `never_ends`.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fake_daemon_api import STDOUT, Request, Server

_DATA = Path(__file__).parent / "data" / "docker"
_RECORDED: dict[str, dict[str, Any]] = {
    folder.name: {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    for folder in sorted(_DATA.iterdir())
}
DOCKERS = tuple(_RECORDED)
"""The recorded Dockers, oldest first. That of 29 has the containerd image store, and was built from
github.com/moby/moby/v2 v2.0.0-beta.24."""

IMAGE: str = _RECORDED[DOCKERS[-1]]["image"]["RepoTags"][0]
GPU = {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
"""A device request as `docker run --gpus all` makes it."""
PATIENCE_SECONDS = 20.0
"""How long a test waits for an event; reached only if the test fails."""

Fault = Callable[[Request], None]


def refuses(status: int, message: str) -> Fault:
    """The daemon's own error."""
    return lambda request: request.refuse(status, message)


def never_answers(request: Request) -> None:
    """Accepts the request and sends nothing until the daemon stops."""
    request.until_cut()


def hangs_up(request: Request) -> None:
    """Closes the connection without an answer."""
    request.close_connection = True


def never_ends(request: Request) -> None:
    """Starts an empty stream that does not end."""
    request.begin_stream()
    request.until_cut()


class Container:
    """A container. `inspected` is its `docker inspect`, which a test may change."""

    def __init__(self, daemon: FakeDaemon, inspected: dict[str, Any]) -> None:
        self.inspected = inspected
        self.stats = daemon.recorded("stats")
        self.processes = [4711]
        """The ids of its processes on the host."""
        self.drips = False
        """Whether its log is sent one byte at a time."""
        self.log: list[tuple[float, int, bytes]] = []
        self.stream = 0
        """Counts the events that end its log's streams: each end of the container, each cut."""
        self._daemon = daemon

    @property
    def id(self) -> str:
        return str(self.inspected["Id"])

    @property
    def name(self) -> str:
        return str(self.inspected["Name"]).removeprefix("/")

    @property
    def status(self) -> str:
        """Of `running`, `exited`, ..., as Docker has it."""
        return str(self.inspected["State"]["Status"])

    @property
    def running(self) -> bool:
        return bool(self.inspected["State"]["Running"])

    def prints(self, text: str | bytes, stream: int = STDOUT) -> None:
        """Write to its log."""
        with self._daemon.change():
            moment = datetime.now(UTC).timestamp()
            data = text.encode() if isinstance(text, str) else text
            self.log.append((moment, stream, data))

    def starts(self) -> None:
        """Start, or start again."""
        with self._daemon.change():
            self.stream += self.running
            state = {"Status": "running", "Running": True, "Pid": 4711, "StartedAt": now()}
            self.inspected["State"].update(state, ExitCode=0, OOMKilled=False, Error="")
            self._daemon.event(self, "start")

    def exits(self, code: int = 0, *, oom_killed: bool = False, error: str = "") -> None:
        """End."""
        with self._daemon.change():
            state = {"Status": "exited", "Running": False, "Pid": 0, "FinishedAt": now()}
            self.inspected["State"].update(
                state, ExitCode=code, OOMKilled=oom_killed, Error=error, Restarting=False
            )
            self.stream += 1
            if oom_killed:
                self._daemon.event(self, "oom")
            self._daemon.event(self, "die", exitCode=str(code))
            if self.inspected["HostConfig"]["AutoRemove"]:
                self.removed()

    def removed(self) -> None:
        """Be gone."""
        with self._daemon.change():
            self.stream += 1
            self._daemon.containers.pop(self.id, None)

    def cut_log(self) -> None:
        """Break off all reads of its log, in the middle of a frame."""
        with self._daemon.change():
            self.log.append((0.0, 0, b""))


class FakeDaemon:
    """The daemon. `address` is for DOCKER_HOST; `asked` are the requests, without the version."""

    def __init__(self, path: Path, docker: str = DOCKERS[-1]) -> None:
        self.address = f"unix://{path}"
        self._docker = docker
        self.containers: dict[str, Container] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.version = self.recorded("version")
        self.info = self.recorded("info")
        self.events: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.when_started: Callable[[Container], None] = lambda _container: None
        """Called when a client starts a container: what its process does."""
        self.when_stopped: Callable[[Container], None] = lambda container: container.exits(0)
        """Called when a client stops a container."""
        self.away = False
        self._faults: list[tuple[re.Pattern[str], Fault]] = []
        self._changed = threading.Condition()
        self._path = path
        self._connections: list[socket.socket] = []
        self.add_image(IMAGE)
        self.comes_back()

    def recorded(self, answer: str) -> dict[str, Any]:
        """A copy of this Docker's answer: image, container, listed, stats, info or version."""
        found: dict[str, Any] = copy.deepcopy(_RECORDED[self._docker][answer])
        return found

    def add_image(self, name: str, **changes: Any) -> str:
        """An image of this name; its id."""
        image = self.recorded("image")
        image.update(Id=f"sha256:{secrets.token_hex(32)}", RepoTags=[name], **changes)
        self.images[name] = image
        return str(image["Id"])

    def add(
        self,
        name: str,
        *,
        image: str = IMAGE,
        host: dict[str, Any] | None = None,
        running: bool = True,
        **config: Any,
    ) -> Container:
        """A container; `host` and `config` are changes of its HostConfig and Config."""
        inspected = self.recorded("container")
        if image not in self.images:
            self.add_image(image)
        identity = secrets.token_hex(32)
        inspected.update(
            Id=identity, Name=f"/{name}", Image=self.images[image]["Id"], Created=now()
        )
        inspected["Config"].update(Image=image, Hostname=identity[:12], **config)
        inspected["HostConfig"].update(host or {})
        never = {"StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"}
        inspected["State"].update(Status="created", Running=False, Pid=0, **never)
        container = Container(self, inspected)
        with self.change():
            self.containers[identity] = container
        if running:
            container.starts()
        return container

    def find(self, reference: str) -> Container | None:
        """By id, the beginning of one, or name."""
        for container in self.containers.values():
            if container.id.startswith(reference) or container.name == reference:
                return container
        return None

    def fault(self, request: str, fault: Fault) -> None:
        """From now on, apply this fault to requests whose method and path match the pattern."""
        self._faults.append((re.compile(request), fault))

    def heal(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def fault_of(self, request: str) -> Fault | None:
        """The fault of this request, "METHOD /path"."""
        return next((fault for pattern, fault in self._faults if pattern.search(request)), None)

    def event(self, container: Container, action: str, **attributes: str) -> None:
        """Record an event of a container."""
        nanoseconds = int(datetime.now(UTC).timestamp() * 1e6) * 1000
        image = container.inspected["Config"]["Image"]
        about = {"image": image, "name": container.name, **attributes}
        self.events.append(
            {
                "status": action,
                "id": container.id,
                "from": image,
                "Type": "container",
                "Action": action,
                "Actor": {"ID": container.id, "Attributes": about},
                "scope": "local",
                "time": nanoseconds // 10**9,
                "timeNano": nanoseconds,
            }
        )

    @contextmanager
    def change(self) -> Iterator[None]:
        """Change the state, and wake all threads that wait for a change."""
        with self._changed:
            yield
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait for a change that makes the condition true."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def until_asked(self, request: str) -> None:
        """Wait until a client has sent a matching request."""
        pattern = re.compile(request)
        assert self.wait_for(lambda: any(map(pattern.search, self.asked)), PATIENCE_SECONDS), (
            f"nobody asked {request}: {self.asked}"
        )

    def goes_away(self) -> None:
        """Stop listening, and close every connection."""
        with self.change():
            self.away = True
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def comes_back(self) -> None:
        """Listen, with the same containers."""
        self._path.unlink(missing_ok=True)
        self.away = False
        self._server = Server(str(self._path), self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def connected(self, connection: socket.socket) -> None:
        """Keep it, to break it off."""
        self._connections.append(connection)

    def listed(self, container: Container) -> dict[str, Any]:
        """A container as `docker ps` has it."""
        inspected = container.inspected
        row = self.recorded("listed")
        bindings = inspected["HostConfig"]["PortBindings"] or {} if container.running else {}
        row.update(
            Id=container.id,
            Names=[f"/{container.name}"],
            Image=inspected["Config"]["Image"],
            ImageID=inspected["Image"],
            Labels=inspected["Config"]["Labels"] or {},
            State=container.status,
            Ports=[
                {
                    "IP": binding["HostIp"],
                    "PrivatePort": int(port.partition("/")[0]),
                    "PublicPort": int(binding["HostPort"]),
                    "Type": port.partition("/")[2],
                }
                for port, bound in bindings.items()
                for binding in bound
            ],
        )
        return row


def now() -> str:
    """The time as Docker writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"

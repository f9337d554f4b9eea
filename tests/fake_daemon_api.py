"""The fake Docker daemon's HTTP API: handles each request that the product makes."""

from __future__ import annotations

import json
import re
import secrets
import struct
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from tests.fake_daemon import Container, FakeDaemon

STDOUT, STDERR = 1, 2


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 50

    def __init__(self, path: str, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        super().__init__(path, Request)

    def handle_error(self, *_: object) -> None:
        """Clients hang up."""


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.daemon = self.server.daemon
        self.daemon.connected(self.connection)

    def do_GET(self) -> None:
        """Answer."""
        url = urlsplit(self.path)
        versioned = re.match(r"/v([0-9.]+)(?=/)", url.path)
        path = unquote(url.path[versioned.end() :] if versioned else url.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.body = json.loads(body) if body.startswith(b"{") else {}
        asked = f"{self.command} {path}"
        with self.daemon.change():
            self.daemon.asked.append(asked + (f"?{url.query}" if url.query else ""))
        if (fault := self.daemon.fault_of(asked)) is not None:
            fault(self)
            return
        if versioned and (refused := self._refused(versioned[1])) is not None:
            self.refuse(400, refused)
            return
        for pattern, answer in _ROUTES:
            if found := pattern.fullmatch(asked):
                answer(self, *found.groups())
                return
        self.refuse(404, "page not found")

    do_POST = do_DELETE = do_GET

    def _refused(self, version: str) -> str | None:
        """Why the daemon does not take a request of this version, in Docker 29's words."""
        served = self.daemon.version
        asked, oldest, newest = (
            tuple(map(int, text.split(".")))
            for text in (version, served["MinAPIVersion"], served["ApiVersion"])
        )
        if asked < oldest:
            return (
                f"client version {version} is too old. Minimum supported API version is "
                f"{served['MinAPIVersion']}, please upgrade your client to a newer version"
            )
        if asked > newest:
            return (
                f"client version {version} is too new. Maximum supported API version is "
                f"{served['ApiVersion']}"
            )
        return None

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, value: Any = None, status: int = 200) -> None:
        """JSON, or nothing for a status that has no body."""
        text = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Api-Version", self.daemon.version["ApiVersion"])
        self.send_header("Content-Type", "application/json")
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, status: int, message: str) -> None:
        """An error of the daemon."""
        self.answer({"message": message}, status)

    def begin_stream(self) -> None:
        """Send the headers of a chunked answer."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """Send a chunk of such an answer; an empty chunk ends it."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def until_cut(self) -> None:
        """Hold the connection until the daemon stops."""
        self.daemon.wait_for(lambda: self.daemon.away)
        self.close_connection = True

    # One method per endpoint.

    def ping(self) -> None:
        self.answer("OK")

    def version(self) -> None:
        self.answer(self.daemon.version)

    def info(self) -> None:
        self.answer(self.daemon.info)

    def image(self, name: str) -> None:
        images = self.daemon.images
        found = images.get(name) or next((i for i in images.values() if i["Id"] == name), None)
        if found is None:
            self.refuse(404, f"no such image: {name}: No such image: {name}")
        else:
            self.answer(found)

    def list(self) -> None:
        everything = self.query.get("all") == "1"
        containers = list(self.daemon.containers.values())
        self.answer([self.daemon.listed(c) for c in containers if c.running or everything])

    def events(self) -> None:
        """Those up to `until`; without it, those that come as well."""
        filters = json.loads(self.query.get("filters", "{}"))
        since = float(self.query.get("since", 0))
        self.begin_stream()
        sent = 0
        while not self.daemon.away:
            events = self.daemon.events[sent:]
            sent += len(events)
            for event in events:
                if (
                    event["time"] >= since
                    and event["id"] in filters.get("container", [event["id"]])
                    and event["Action"] in filters.get("event", [event["Action"]])
                ):
                    self.chunk(json.dumps(event).encode() + b"\n")
            if "until" in self.query:
                self.chunk(b"")
                return
            self.daemon.wait_for(partial(self._event_came, sent))

    def _event_came(self, known: int) -> bool:
        return self.daemon.away or len(self.daemon.events) > known

    def create(self) -> None:
        image = self.body["Image"]
        if image not in self.daemon.images:
            self.refuse(404, f"No such image: {image}")
            return
        name = self.query.get("name") or f"gracious_{secrets.token_hex(4)}"
        host = self.body.pop("HostConfig", None) or {}
        config = {key: value for key, value in self.body.items() if key != "NetworkingConfig"}
        made = self.daemon.add(name, running=False, image=config.pop("Image"), host=host, **config)
        self.answer({"Id": made.id, "Warnings": []}, 201)

    def of_container(self, reference: str, action: str) -> None:
        """What is asked of one container."""
        found = self.daemon.find(reference)
        if found is None:
            self.refuse(404, f"No such container: {reference}")
        else:
            getattr(self, f"container_{action or self.command.lower()}")(found)

    def container_json(self, container: Container) -> None:
        self.answer(container.inspected)

    def container_stats(self, container: Container) -> None:
        self.answer(container.stats)

    def container_top(self, container: Container) -> None:
        if not container.running:
            self.refuse(409, f"Container {container.id} is not running")
            return
        titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        pids = map(str, container.processes)
        rows = [["root", pid, "1", "0", "12:00", "?", "00:00:01", "python3"] for pid in pids]
        self.answer({"Titles": titles, "Processes": rows})

    def container_start(self, container: Container) -> None:
        if container.running:
            self.answer(status=304)
            return
        container.starts()
        self.daemon.when_started(container)
        self.answer(status=204)

    def container_stop(self, container: Container) -> None:
        if not container.running:
            self.answer(status=304)
            return
        self.daemon.when_stopped(container)
        self.answer(status=204)

    def container_wait(self, container: Container) -> None:
        self.daemon.wait_for(lambda: self.daemon.away or not container.running)
        code = container.inspected["State"]["ExitCode"]
        self.answer({"Error": None, "StatusCode": code})

    def container_delete(self, container: Container) -> None:
        if container.running and self.query.get("force") not in ("True", "1", "true"):
            self.refuse(
                409,
                f"You cannot remove a running container {container.id}. Stop the container before "
                "attempting removal or force remove",
            )
            return
        container.removed()
        self.answer(status=204)

    def container_attach(self, container: Container) -> None:
        """The frames that come from now on, over a connection that is HTTP no longer."""
        log = self._log(container, len(container.log), follow=True)
        self.send_response(101, "UPGRADED")
        self.send_header("Content-Type", "application/vnd.docker.raw-stream")
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.close_connection = True
        for moment, kind, data in log:
            if not moment:
                return
            if self._wanted(kind):
                self.wfile.write(_frame(container, kind, data))

    def container_logs(self, container: Container) -> None:
        driver = container.inspected["HostConfig"]["LogConfig"]["Type"]
        if driver == "none":
            self.refuse(500, "configured logging driver does not support reading")
            return
        since = float(self.query.get("since", 0))
        follow = self.query.get("follow") in ("True", "1", "true")
        self.begin_stream()
        for moment, kind, data in self._log(container, 0, follow=follow):
            if not moment:  # cut: half of a frame's head, and no end of the chunks
                self.chunk(b"\1\0\0")
                self.close_connection = True
                return
            if moment >= since and self._wanted(kind):
                frame = _frame(container, kind, data)
                step = 1 if container.drips else len(frame)
                for at in range(0, len(frame), step):
                    self.chunk(frame[at : at + step])
        if self.daemon.away:
            self.close_connection = True
        else:
            self.chunk(b"")

    def _wanted(self, kind: int) -> bool:
        return self.query.get("stdout" if kind == STDOUT else "stderr") not in (None, "0", "False")

    def _log(
        self, container: Container, known: int, *, follow: bool
    ) -> Iterator[tuple[float, int, bytes]]:
        """The entries after the first `known`, until the container ends; an old cut is none."""
        # What is attached to need not run yet.
        follow = follow and (container.running or self.command == "POST")
        present, stream = len(container.log), container.stream

        def entries(known: int) -> Iterator[tuple[float, int, bytes]]:
            while True:
                over = self.daemon.away or container.stream != stream or not follow
                new = container.log[known:]
                for at, entry in enumerate(new, known):
                    if entry[0] or at >= present:
                        yield entry
                known += len(new)
                if over:
                    return
                self.daemon.wait_for(partial(self._log_moved, container, known, stream))

        return entries(known)

    def _log_moved(self, container: Container, known: int, stream: int) -> bool:
        return self.daemon.away or len(container.log) > known or container.stream != stream


def _frame(container: Container, kind: int, data: bytes) -> bytes:
    if container.inspected["Config"]["Tty"]:
        return data
    return struct.pack(">BxxxL", kind, len(data)) + data


_ROUTES: list[tuple[re.Pattern[str], Callable[..., None]]] = [
    (re.compile(pattern), answer)
    for pattern, answer in (
        ("GET /_ping", Request.ping),
        ("GET /version", Request.version),
        ("GET /info", Request.info),
        ("GET /images/(.+)/json", Request.image),
        ("GET /containers/json", Request.list),
        ("GET /events", Request.events),
        ("POST /containers/create", Request.create),
        ("(?:GET|POST) /containers/([^/]+)/(json|stats|top|logs|start|stop|wait|attach)",
         Request.of_container),
        ("DELETE /containers/([^/]+)()", Request.of_container),
    )
]  # fmt: skip

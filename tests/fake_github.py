"""GitHub's REST API on loopback, as far as the workflows use it.

It has what a job meets: pages with `Link` headers, a token with the permissions that the job was
given, downloads that redirect to another host, limits and failures.

Sources: docs.github.com/en/rest (pulls, issues, actions); for what each request needs, its page
"Permissions required for GitHub Apps".
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

REPOSITORY = "team/models"
TOKEN = "ghs_canary0123456789"
BOT = "github-actions[bot]"


@dataclass
class FakeGitHub:
    """What the repository has, what was asked of it, and how it fails."""

    permissions: Mapping[str, str] = field(
        default_factory=lambda: {"actions": "read", "pull-requests": "write", "issues": "write"}
    )
    page_size: int = 100
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    issues: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    archives: dict[int, bytes] = field(default_factory=dict)
    failures: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    """Answers to come: a method, a status and headers, each given once to the next such request."""
    asked: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    broken: str = ""
    """The request whose answer is no JSON, or `download` for one that ends early."""
    download_headers: dict[str, str] = field(default_factory=dict)
    """What the host of the downloads was sent."""
    api: str = ""
    store: str = ""

    def add_run(self, run: int, *, head: str, branch: str, source: str | None) -> None:
        repository = {"full_name": source} if source else None
        self.runs[run] = {
            "id": run,
            "head_sha": head,
            "head_branch": branch,
            "head_repository": repository,
        }

    def add_pull(
        self, number: int, *, head: str, branch: str, source: str | None, state: str = "open"
    ) -> None:
        repository = {"full_name": source} if source else None
        told = {"sha": head, "ref": branch, "repo": repository}
        self.pulls.append({"number": number, "state": state, "head": told})
        self.comments.setdefault(number, [])

    def add_comment(self, number: int, body: str, author: str | None = BOT) -> None:
        user = {"login": author} if author else None
        have = self.comments.setdefault(number, [])
        have.append({"id": 100 * number + len(have), "body": body, "user": user})

    def add_artifact(self, run: int, archive: bytes, name: str = "report", **more: Any) -> None:
        number = 1000 + len(self.archives)
        self.archives[number] = archive
        told = {"id": number, "name": name, "expired": False, **more}
        self.artifacts.setdefault(run, []).append(told)

    @property
    def environment(self) -> dict[str, str]:
        """What a runner gives to every step, and the token that a step has to be given."""
        return {
            "GITHUB_API_URL": self.api,
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_TOKEN": TOKEN,
        }


def archive(files: Mapping[str, bytes | str]) -> bytes:
    """A zip archive, as an upload makes it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return made.getvalue()


_ROUTES = (
    # method, path, permission, its level
    ("GET", r"actions/runs/(\d+)", "actions", "read"),
    ("GET", r"actions/runs/(\d+)/artifacts", "actions", "read"),
    ("GET", r"actions/artifacts/(\d+)/zip", "actions", "read"),
    ("GET", r"pulls", "pull-requests", "read"),
    ("GET", r"issues/(\d+)/comments", "pull-requests", "read"),
    ("POST", r"issues/(\d+)/comments", "pull-requests", "write"),
    ("PATCH", r"issues/comments/(\d+)", "pull-requests", "write"),
    ("GET", r"issues", "issues", "read"),
    ("POST", r"issues", "issues", "write"),
    ("PATCH", r"issues/(\d+)", "issues", "write"),
)


class _Api(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, method: str) -> None:
        hub = self.server.hub
        split = urlsplit(self.path)
        path = split.path.removeprefix(f"/repos/{REPOSITORY}/")
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "{}")
        hub.asked.append(f"{method} {path}")
        if hub.broken == f"{method} {path}":
            self._send_text(200, b"<html>a proxy</html>", {})
            return
        for failure in hub.failures:
            if failure[0] == method:
                hub.failures.remove(failure)
                self._send(failure[1], {"message": "failed"}, failure[2])
                return
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._send(401, {"message": "Bad credentials"})
            return
        for verb, pattern, permission, level in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and verb == method:
                if hub.permissions.get(permission) not in (level, "write"):
                    self._send(403, {"message": "Resource not accessible by integration"})
                    return
                number = int(found[1]) if found.groups() else 0
                query = {key: texts[0] for key, texts in parse_qs(split.query).items()}
                self._route(f"{method} {pattern}", number, query, body)
                return
        self._send(404, {"message": "Not Found"})

    def _route(self, route: str, number: int, query: dict[str, str], body: dict[str, Any]) -> None:
        hub = self.server.hub
        if not route.startswith("GET"):
            hub.written.append(route.partition(" ")[0] + f" {number}")
        match route.replace(r"(\d+)", "N"):
            case "GET actions/runs/N" if number in hub.runs:
                self._send(200, hub.runs[number])
            case "GET actions/runs/N/artifacts":
                of_run = hub.artifacts.get(number, [])
                self._page(
                    [one for one in of_run if one["name"] == query["name"]], query, "artifacts"
                )
            case "GET actions/artifacts/N/zip" if number in hub.archives:
                self._send(302, {}, {"Location": f"{hub.store}/{number}"})
            case "GET pulls":
                self._page([one for one in hub.pulls if _matches(one, query)], query)
            case "GET issues/N/comments" if number in hub.comments:
                self._page(hub.comments[number], query)
            case "POST issues/N/comments" if number in hub.comments:
                hub.add_comment(number, body["body"])
                self._send(201, {})
            case "PATCH issues/comments/N":
                every = [one for some in hub.comments.values() for one in some]
                next(one for one in every if one["id"] == number).update(body)
                self._send(200, {})
            case "GET issues":
                chosen = [
                    one
                    for one in hub.issues
                    if one["state"] == query["state"] and one["user"]["login"] == query["creator"]
                ]
                self._page(chosen, query)
            case "POST issues":
                number = 1 + len(hub.issues)
                made = {"number": number, "state": "open", "user": {"login": BOT}, **body}
                hub.issues.append(made)
                self._send(201, {})
            case "PATCH issues/N":
                next(one for one in hub.issues if one["number"] == number).update(body)
                self._send(200, {})
            case _:
                self._send(404, {"message": "Not Found"})

    def _page(self, entries: list[Any], query: dict[str, str], key: str | None = None) -> None:
        size = min(int(query.get("per_page", 30)), self.server.hub.page_size)
        page = int(query.get("page", 1))
        shown = entries[(page - 1) * size : page * size]
        headers = {}
        if page * size < len(entries):
            more = urlencode({**query, "page": str(page + 1)})
            path = urlsplit(self.path).path
            headers["Link"] = f'<{self.server.hub.api}{path}?{more}>; rel="next"'
        self._send(200, {key: shown} if key else shown, headers)

    def _send(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        self._send_text(status, json.dumps(body).encode(), headers or {})

    def _send_text(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _matches(pull: dict[str, Any], query: dict[str, str]) -> bool:
    """The filters of the list of pull requests; `head` is owner:branch."""
    head = pull["head"]
    owner = head["repo"]["full_name"].partition("/")[0] if head["repo"] else "ghost"
    wanted = query.get("head", f"{owner}:{head['ref']}")
    return bool(pull["state"] == query["state"] and wanted == f"{owner}:{head['ref']}")


class _Store(BaseHTTPRequestHandler):
    """The other host, from which artifacts come."""

    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        hub.download_headers = dict(self.headers)
        content = hub.archives[int(self.path.strip("/"))]
        missing = 100 if hub.broken == "download" else 0
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + missing))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], hub: FakeGitHub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), handler)


@contextmanager
def serving(hub: FakeGitHub) -> Iterator[FakeGitHub]:
    """Serve it until the block ends."""
    servers = [_Server(_Api, hub), _Server(_Store, hub)]
    hub.api, hub.store = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()

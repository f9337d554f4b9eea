"""A hub for tests: serves a folder of files with as much of the Hugging Face API as a fetch needs.

    python3 local_hub.py FOLDER            FOLDER/owner/name/... are the models' files

Plain Python without packages. Environment variables configure it: HUB_PORT, HUB_RATE (bytes per
second for all downloads together), HUB_BREAK (each file's first download breaks off after so many
bytes), HUB_SILENT (1: requests about models are accepted and never answered).
It refuses a model without a token if its folder contains GATED, and with 429 if it contains BUSY.
Every model has one revision, `main`; its commit is a hash of its files' names and sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
RATE = float(os.environ.get("HUB_RATE", "0"))
BREAK = int(os.environ.get("HUB_BREAK", "0"))
SILENT = os.environ.get("HUB_SILENT") == "1"
CHUNK = 1 << 16


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    broken: set[str] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if SILENT:
            threading.Event().wait()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.model(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            self.tree(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(found[1], found[2], found[3])
        else:
            self.refuse(404, "EntryNotFound")

    def model(self, name: str, revision: str) -> None:
        if not self.allowed(name, revision):
            return
        siblings = [
            {"rfilename": file, "size": size, "blobId": _tag(name, file)}
            for file, size in _files(name).items()
        ]
        about = {"id": name, "modelId": name, "sha": _commit(name), "siblings": siblings}
        self.send_json({**about, "private": False, "tags": []})

    def tree(self, name: str, revision: str) -> None:
        if self.allowed(name, revision):
            self.send_json(
                [
                    {"type": "file", "path": file, "size": size, "oid": _tag(name, file)}
                    for file, size in _files(name).items()
                ]
            )

    def send_json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.begin(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def file(self, name: str, revision: str, file: str) -> None:
        if not self.allowed(name, revision):
            return
        path = FOLDER / name / file
        if not path.is_file():
            self.refuse(404, "EntryNotFound")
            return
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(wanted[1]) if wanted else 0
        last = min(int(wanted[2]), size - 1) if wanted and wanted[2] else size - 1
        headers = {
            "ETag": f'"{_tag(name, file)}"',
            "X-Repo-Commit": _commit(name),
            "Accept-Ranges": "bytes",
            "Content-Length": str(last - first + 1),
        }
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.begin(206 if wanted else 200, headers)
        if self.command == "GET":
            self.send_file(path, first, last)

    def send_file(self, path: Path, first: int, last: int) -> None:
        left, sent = last - first + 1, 0
        with path.open("rb") as content:
            content.seek(first)
            while left > 0 and (chunk := content.read(min(CHUNK, left))):
                if BREAK and sent >= BREAK and str(path) not in self.broken:
                    self.broken.add(str(path))
                    self.close_connection = True
                    self.connection.close()
                    return
                self.wfile.write(chunk)
                left, sent = left - len(chunk), sent + len(chunk)
                if RATE:
                    time.sleep(len(chunk) / RATE)

    def allowed(self, name: str, revision: str) -> bool:
        if not (FOLDER / name).is_dir():
            self.refuse(404, "RepoNotFound")
        elif (FOLDER / name / "BUSY").exists():
            self.refuse(429, "RateLimited")
        elif (FOLDER / name / "GATED").exists() and "Authorization" not in self.headers:
            self.refuse(403, "GatedRepo")
        elif revision not in ("main", _commit(name)):
            self.refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def refuse(self, status: int, code: str) -> None:
        self.begin(status, {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"})

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


def _files(name: str) -> dict[str, int]:
    folder = FOLDER / name
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _commit(name: str) -> str:
    return hashlib.sha1(json.dumps(_files(name)).encode()).hexdigest()


def _tag(name: str, file: str) -> str:
    return hashlib.sha1(f"{name}/{file}/{_files(name)[file]}".encode()).hexdigest()


if __name__ == "__main__":
    address = ("0.0.0.0", int(os.environ.get("HUB_PORT", "8080")))
    with ThreadingHTTPServer(address, Hub) as server:
        print("the hub listens", flush=True)
        server.serve_forever()

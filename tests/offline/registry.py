"""A registry of one image, for pulls: it wants a login, and one of its tags has a lost layer."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER, PASSWORD = "$oauthtoken", "nvapi-test"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _content() -> dict[str, bytes]:
    """Path to body. `:good` is an empty image of one layer; `:broken` lacks that layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("marker"))
    layer = gzip.compress(buffer.getvalue(), mtime=0)
    content: dict[str, bytes] = {}
    for tag, reference in (("good", layer), ("broken", b"lost")):
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Labels": {"tag": tag}},
                "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer))]},
            }
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"size": len(config), "digest": _digest(config)},
            "layers": [{"size": len(reference), "digest": _digest(reference)}],
        }
        content[f"manifests/{tag}"] = json.dumps(manifest).encode()
        content[f"blobs/{_digest(config)}"] = config
    content[f"blobs/{_digest(layer)}"] = layer
    return content | {
        f"manifests/{_digest(body)}": body
        for path, body in content.items()
        if path.startswith("manifests")
    }


class _Handler(BaseHTTPRequestHandler):
    content = _content()
    login = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def do_GET(self) -> None:
        path = self.path.removeprefix("/v2/").removeprefix("offline-test-pulled/")
        if self.headers["Authorization"] != self.login:
            self._answer(401, b"{}")
        elif path == "":
            self._answer(200, b"{}")
        elif path in self.content:
            self._answer(200, self.content[path])
        else:
            error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
            self._answer(404, json.dumps({"errors": [error]}).encode())

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
        if "/manifests/" in self.path:
            self.send_header("Content-Type", MANIFEST)
            self.send_header("Docker-Content-Digest", _digest(body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def registry() -> Iterator[str]:
    """Serve it; yields `127.0.0.1:PORT`, which Docker takes for one that may speak plain HTTP."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

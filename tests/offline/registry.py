"""A registry for pulls. Unless told otherwise it wants a login, and one tag of it lacks a layer."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

USER, PASSWORD = "$oauthtoken", "nvapi-test"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"
CHUNK = 1 << 16

Content = Mapping[str, bytes]
"""Path to body: `manifests/<tag>`, `manifests/<digest>` and `blobs/<digest>`."""


def image(tag: str, layers: Sequence[bytes], config: Mapping[str, Any]) -> dict[str, bytes]:
    """An image's content. `layers` are tar files, compressed or not; `config` is its `config`."""
    described = {
        "architecture": "arm64" if platform.machine() == "aarch64" else "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [_digest(_unpacked(layer)) for layer in layers]},
    }
    blob = json.dumps(described).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(blob), "digest": _digest(blob)},
        "layers": [
            {
                "mediaType": LAYER + (".gzip" if _is_gzip(layer) else ""),
                "size": len(layer),
                "digest": _digest(layer),
            }
            for layer in layers
        ],
    }
    body = json.dumps(manifest).encode()
    return {
        f"manifests/{tag}": body,
        f"manifests/{_digest(body)}": body,
        **{f"blobs/{_digest(part)}": part for part in (blob, *layers)},
    }


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _unpacked(layer: bytes) -> bytes:
    return gzip.decompress(layer) if _is_gzip(layer) else layer


def _is_gzip(layer: bytes) -> bool:
    return layer.startswith(b"\x1f\x8b")


def _good_and_broken() -> Content:
    """`:good` is an empty image of one layer, and like no other; `:broken` lacks its layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"marker-{uuid4().hex}"))
    layer, lost = gzip.compress(buffer.getvalue(), mtime=0), b"lost"
    content = image("good", [layer], {"Labels": {"tag": "good"}})
    content |= image("broken", [lost], {"Labels": {"tag": "broken"}})
    del content[f"blobs/{_digest(lost)}"]
    return content


class _Handler(BaseHTTPRequestHandler):
    # containerd tries TLS first, and HTTP only after an answer that begins with `HTTP/`.
    default_request_version = "HTTP/1.0"
    content: Content
    login: str | None
    rate: float

    def do_GET(self) -> None:
        path = self.path.removeprefix("/v2/").partition("/")[2]  # without the repository's name
        if self.login is not None and self.headers["Authorization"] != self.login:
            self._answer(401, b"{}")
        elif self.path == "/v2/":
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
        if self.command != "GET":
            return
        for first in range(0, len(body), CHUNK):
            self.wfile.write(body[first : first + CHUNK])
            if self.rate:
                time.sleep(CHUNK / self.rate)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def registry(
    content: Content | None = None,
    login: tuple[str, str] | None = (USER, PASSWORD),
    rate: float = 0,
) -> Iterator[str]:
    """Serve `content`, with so many bytes a second if `rate` is given.

    Yields `127.0.0.1:PORT`, which Docker takes for one that may speak plain HTTP. Its images are
    there by any repository's name of one part.
    """
    serving = {
        "content": _good_and_broken() if content is None else content,
        "login": login and "Basic " + b64encode(":".join(login).encode()).decode(),
        "rate": rate,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), serving))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

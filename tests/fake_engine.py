"""A stand-in for a vLLM server, for faults that a real one cannot be made to show on demand.

Plain Python without packages, so that it runs in any container. It is told by environment:

FAKE_FAULT    what goes wrong; see FAULTS
FAKE_MODEL    the name it serves (default: the argument after `serve`, else the first)
FAKE_PORT     where it listens (default 8000)
FAKE_KEY      the API key it wants
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = {
    "exit-0": "ends with code 0 while it starts",
    "exit-1": "ends with code 1 while it starts",
    "hang": "listens and never answers anything",
    "wedge": "answers /health and /v1/models; completions never end",
    "dead-engine": "answers /health and /v1/models with 200, completions with 500",
    "unhealthy": "answers /health with 503 for ever",
    "no-tokenizer": "answers completions with 400",
    "garbage": "answers completions with 200 and no JSON",
    "no-http": "answers with bytes that are not HTTP",
    "redirect": "answers everything with 302",
    "drip": "sends the completion ten bytes a second",
    "half": "breaks off in the middle of the completion",
    "reset": "resets the first two connections, then serves",
    "busy": "answers the first two completions with 503, then serves",
    "die-after-answer": "ends with code 0 right after its first completion",
}


def main() -> None:
    """Serve, with the fault that the environment names."""
    arguments = sys.argv[1:]
    named = arguments.index("serve") + 1 if "serve" in arguments else 0
    default = arguments[named] if arguments else "fake"
    server = Server(os.environ.get("FAKE_FAULT", ""), os.environ.get("FAKE_MODEL", default))
    server.start()


class Server:
    """One start of the stand-in."""

    def __init__(self, fault: str, model: str) -> None:
        if fault and fault not in FAULTS:
            sys.exit(f"unknown FAKE_FAULT {fault!r}; known: {', '.join(FAULTS)}")
        self.fault = fault
        self.model = model
        self.key = os.environ.get("FAKE_KEY")
        self.completions = 0
        self.connections = 0

    def start(self) -> None:
        """Listen until killed, unless the fault is an early end."""
        if self.fault.startswith("exit-"):
            sys.exit(int(self.fault[-1]))
        port = int(os.environ.get("FAKE_PORT", "8000"))
        with ThreadingHTTPServer(("0.0.0.0", port), handler(self)) as http:
            print("INFO:     Application startup complete.", flush=True)
            http.serve_forever()


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            server.connections += 1
            match server.fault:
                case "hang":
                    threading.Event().wait()
                case "no-http":
                    self.request.sendall(b"220 mail.example ESMTP ready\r\n")
                case "reset" if server.connections <= 2:
                    linger = struct.pack("ii", 1, 0)
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.request.close()
                case _:
                    super().handle()

        def do_GET(self) -> None:
            if server.fault == "redirect":
                self.answer(302, b"")
            elif self.path == "/health":
                self.answer(503 if server.fault == "unhealthy" else 200, b"")
            elif self.path == "/v1/models" and self.allowed():
                models = {"object": "list", "data": [{"id": server.model, "object": "model"}]}
                self.answer(200, json.dumps(models).encode())
            elif self.path != "/v1/models":
                self.answer(404, b'{"detail":"Not Found"}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if not self.allowed():
                return
            server.completions += 1
            body = json.dumps(
                {
                    "model": server.model,
                    "choices": [{"index": 0, "text": " world", "finish_reason": "length"}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
                }
            ).encode()
            match server.fault:
                case "wedge":
                    threading.Event().wait()
                case "dead-engine":
                    error = b'{"error":{"message":"EngineCore encountered an issue.","code":500}}'
                    self.answer(500, error)
                case "no-tokenizer":
                    self.answer(400, b'{"error":{"message":"tokenizer is not set","code":400}}')
                case "garbage":
                    self.answer(200, b"<html>It works!</html>")
                case "busy" if server.completions <= 2:
                    self.answer(503, b"")
                case "half":
                    self.begin(200, len(body))
                    self.wfile.write(body[: len(body) // 2])
                case "drip":
                    self.begin(200, len(body))
                    for byte in body:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.1)
                case "die-after-answer":
                    self.answer(200, body)
                    self.wfile.flush()
                    os._exit(0)
                case _:
                    self.answer(200, body)

        def allowed(self) -> bool:
            if server.key in (None, self.headers.get("Authorization", "").removeprefix("Bearer ")):
                return True
            self.answer(401, b'{"error":"Unauthorized"}')
            return False

        def begin(self, status: int, length: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def answer(self, status: int, body: bytes) -> None:
            self.begin(status, len(body))
            self.wfile.write(body)

    return Handler


if __name__ == "__main__":
    main()

"""A stand-in for a vLLM server, for faults that a real one does not show on demand.

Plain Python without packages, so that it runs in any container. Its behaviour was seen with vLLM
0.26 on an H200 and 0.32 on a CPU. Environment variables configure it:

FAKE_MODEL     the name it serves (default: the argument after `serve`, else the first)
FAKE_PORT      where it listens (default 8000)
FAKE_KEY       the API key it wants (default: VLLM_API_KEY)
FAKE_LOG       a saved log to print while it starts: *.jsonl of {"t": seconds, "line": text} with
               its own timing, anything else at once
FAKE_SPEED     so many times faster than that log's real time (default 1)
FAKE_UNTIL     the log stops before its first line with this text (default: that of readiness)
FAKE_LOAD      seconds from there until it listens, or fails to (default 0)
FAKE_PACE      seconds for each token of an answer (default 0)
FAKE_DEADLINE  seconds after which it ends by itself, with code 3: no test leaves it (default 600)
FAKE_FAULT     what goes wrong: names out of FAULTS, commas between, each with its number if it
               has one other than the default: `busy`, `status-503`, `wedge-1,sigterm-waits`
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

FAULTS: dict[str, tuple[int | None, str]] = {
    # before it is ready
    "noise": (1_000_000, "logs N lines as fast as it can"),
    "exit": (1, "ends with code N"),
    "mute": (None, "logs (unless FAKE_LOG does) that the engine failed; lives on, not listening"),
    "hog": (None, "takes memory until its cgroup kills it"),
    # for every request
    "hang": (None, "accepts, and never answers anything"),
    "no-http": (None, "answers with bytes that are not HTTP"),
    "redirect": (302, "answers everything with N"),
    "reset": (2, "resets the first N connections, then serves"),
    "unhealthy": (503, "always answers /health with N"),
    # asked for a completion; /health, /v1/models and /metrics stay as they are
    "status": (500, "answers N"),
    "busy": (2, "answers the first N with 503"),
    "no-tokenizer": (400, "answers N, like a model without tokenizer files"),
    "pooling": (404, "makes embeddings only: answers N (404 as of 0.32, 400 as of 0.10.1)"),
    "chat-only": (404, "refuses /v1/completions with N, and chats"),
    "no-chat-template": (400, "refuses /v1/chat/completions with N, and completes"),
    "garbage": (None, "answers 200 and no JSON"),
    "drip": (None, "sends the answer ten bytes a second"),
    "half": (None, "sends half of the answer or of the stream, then resets the connection"),
    "wedge": (0, "answers the first N; the rest never end"),
    "dead-engine": (0, "answers the first N, then 500; streams end with [DONE], /health says 503"
                       " once, and it ends with code 0"),
    "die-after-answer": (0, "ends with code N right after its first answer"),
    # asked to end
    "sigterm-swallowed": (None, "ignores the first SIGTERM; the second ends it with code 1"),
    "sigterm-waits": (None, "goes silent on SIGTERM, ends when every client has hung up"),
}  # fmt: skip

READY = "Application startup complete."
LIMITS = [
    Path("/sys/fs/cgroup/memory.max"),  # cgroup v2
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),  # v1
]
DEAD_SECONDS = 10.0
"""The server of a dead engine ends after /health has reported it, or else after this time."""

_CORE = "(EngineCore pid=26) ERROR 11-23 12:00:00 [core.py:1330]"
_FAILED = (
    f"{_CORE} EngineCore failed to start.",
    f"{_CORE} Traceback (most recent call last):",
    f"{_CORE} ValueError: No available memory for the cache blocks.",
)
_DIED = (
    "(APIServer pid=1) WARNING 11-23 12:00:00 [core_client.py:817] [shutdown] MPClient: engine core"
    " exited unexpectedly; starting cleanup"
)
_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a"
    " chat template if the tokenizer does not define one."
)


def main() -> None:
    """Start, serve, and end when asked to."""
    engine = Handler.engine = Engine()
    signal.signal(signal.SIGTERM, engine.sigterm)
    end_after(float(os.environ.get("FAKE_DEADLINE", "600")), 3)
    engine.load()
    address = ("0.0.0.0", int(os.environ.get("FAKE_PORT", "8000")))
    with ThreadingHTTPServer(address, Handler) as engine.http:
        say(f"INFO:     {READY}")
        engine.http.serve_forever()
    engine.drain()


def say(*lines: str) -> None:
    """Log at once, without a lock that a signal handler could find held."""
    os.write(1, "".join(f"{line}\n" for line in lines).encode())


def end_after(seconds: float, code: int) -> None:
    """End with `code` if nothing else has ended it by then."""
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()


def faults(text: str) -> dict[str, int]:
    """The faults named in `text`, each with its number; 0 for one that has none."""
    named = {}
    for word in filter(None, text.split(",")):
        name, _, number = (word, "", "") if word in FAULTS else word.rpartition("-")
        default = FAULTS.get(name, (None, ""))[0]
        if name not in FAULTS or (number and (default is None or not number.isdecimal())):
            sys.exit(f"unknown FAKE_FAULT {word!r}; known: {', '.join(FAULTS)}")
        named[name] = int(number or default or 0)
    return named


def saved(log: Path, until: str) -> Iterator[tuple[float, str]]:
    """The lines of a log, each with the second at which it came."""
    for text in log.read_text().splitlines():
        at, line = json.loads(text).values() if log.suffix == ".jsonl" else (0.0, text)
        if until in line:
            return
        if not line.startswith(("# argv:", "# exit")):  # added when the log was saved
            yield at, line


def take_memory() -> None:
    """Fill memory to the cgroup's limit; never where there is none to protect the machine."""
    limits = [path.read_text().strip() for path in LIMITS if path.exists()]
    if not any(limit.isdecimal() and int(limit) < 1 << 60 for limit in limits):
        sys.exit("the fault `hog` wants a container with a memory limit")
    taken = []
    while True:
        taken.append(b"x" * (1 << 24))


class Engine:
    """One start of the stand-in."""

    def __init__(self) -> None:
        self.faults = faults(os.environ.get("FAKE_FAULT", ""))
        named = sys.argv.index("serve") + 1 if "serve" in sys.argv else 1
        self.model = os.environ.get("FAKE_MODEL") or sys.argv[named]
        self.key = os.environ.get("FAKE_KEY") or os.environ.get("VLLM_API_KEY")
        self.pace = float(os.environ.get("FAKE_PACE", "0"))
        self.http: ThreadingHTTPServer | None = None
        self.changed = threading.Condition()
        self.connections = self.completions = self.running = self.tokens = self.sigterms = 0
        self.over, self.dead = threading.Event(), False

    def load(self) -> None:
        """Print the log at its speed, and return when ready, unless a fault prevents it."""
        began, log = time.monotonic(), os.environ.get("FAKE_LOG")
        speed = float(os.environ.get("FAKE_SPEED", "1"))
        for at, line in saved(Path(log), os.environ.get("FAKE_UNTIL", READY)) if log else ():
            time.sleep(max(0.0, began + at / speed - time.monotonic()))
            say(line)
        time.sleep(float(os.environ.get("FAKE_LOAD", "0")))
        lines = self.faults.get("noise", 0)
        for first in range(0, lines, 1000):
            say(*(f"INFO:     line {n}" for n in range(first, min(first + 1000, lines))))
        if "exit" in self.faults:
            sys.exit(self.faults["exit"])
        if "mute" in self.faults:
            say(*(() if log else _FAILED))
            threading.Event().wait()
        if "hog" in self.faults:
            take_memory()

    def sigterm(self, *_: object) -> None:
        """End as the real one does: with code 1 while it starts, later in an orderly way."""
        self.sigterms += 1
        swallows = "sigterm-swallowed" in self.faults
        if swallows and self.sigterms == 1:
            return
        if swallows or self.http is None:
            say("KeyboardInterrupt: terminated")
            os._exit(1)
        self.over.set()
        threading.Thread(target=self.http.shutdown).start()

    def drain(self) -> None:
        """What follows when the port is closed."""
        say("INFO:     Shutting down")
        if "sigterm-waits" in self.faults:
            say("INFO:     Waiting for connections to close. (CTRL+C to force quit)")
            with self.changed:
                self.changed.wait_for(lambda: self.running == 0)
        say("INFO:     Waiting for application shutdown.")
        say("INFO:     Application shutdown complete.")
        os._exit(0)

    @contextmanager
    def request(self) -> Iterator[int]:
        """Count a completion in and out; its number, from 1."""
        with self.changed:
            self.completions += 1
            self.running += 1
            number = self.completions
        try:
            yield number
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()

    def metrics(self) -> str:
        """The metrics that distinguish a busy engine from a wedged one."""
        values = {"num_requests_running": self.running, "num_requests_waiting": 0}
        values |= {"kv_cache_usage_perc": 0, "generation_tokens_total": self.tokens}
        labels = f'{{engine="0",model_name="{self.model}"}}'
        return "".join(f"vllm:{name}{labels} {value}.0\n" for name, value in values.items())


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    engine: Engine
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", _size: int | str = "-") -> None:
        say(f'INFO:     127.0.0.1:{self.client_address[1]} - "{self.requestline}" {code}')

    def handle(self) -> None:
        self.engine.connections += 1
        with suppress(ConnectionError):
            if "hang" in self.engine.faults:
                self.never()
            elif "no-http" in self.engine.faults:
                self.request.sendall(b"220 mail.example ESMTP ready\r\n")
            elif self.engine.connections <= self.engine.faults.get("reset", 0):
                self.reset()
            else:
                super().handle()

    def do_GET(self) -> None:
        engine, faults, path = self.engine, self.engine.faults, self.path
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if "redirect" in faults:
            self.answer(faults["redirect"])
        elif path.startswith("/v1/") and engine.key not in (None, bearer):
            self.answer(401, {"error": "Unauthorized"})
        elif path == "/health":
            self.answer(503 if engine.dead else faults.get("unhealthy", 200))
            if engine.dead:
                os._exit(0)
        elif path == "/metrics":
            self.answer(200, engine.metrics())
        elif path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": engine.model, "object": "model"}]})
        elif path == "/v1/embeddings" and "pooling" in faults:
            self.answer(200, {"model": engine.model, "data": [{"embedding": [0.6, 0.8]}]})
        elif path in ("/v1/completions", "/v1/chat/completions"):
            with engine.request() as number:
                self.complete(json.loads(body or b"{}"), number, chat="chat" in path)
            if "die-after-answer" in faults:
                os._exit(faults["die-after-answer"])
        else:
            self.answer(404, {"detail": "Not Found"})

    do_POST = do_GET

    def complete(self, request: dict[str, Any], number: int, *, chat: bool) -> None:
        """Answer one request for tokens, or fail it."""
        faults, asked = self.engine.faults, request.get("model", self.engine.model)
        tokens = int(request.get("max_tokens") or request.get("max_completion_tokens") or 16)
        refused = "no-chat-template" if chat else "chat-only"
        if number > faults.get("wedge", number):
            self.never()
        elif self.engine.dead or number > faults.get("dead-engine", number):
            self.die()
        elif 404 in (faults.get("pooling"), faults.get(refused)):
            self.answer(404, {"detail": "Not Found"})
        elif "pooling" in faults:
            self.fail(faults["pooling"], "The model does not support Completions API")
        elif refused in faults:
            self.fail(faults[refused], _NO_TEMPLATE)
        elif asked != self.engine.model:
            self.fail(404, f"The model `{asked}` does not exist.")
        elif "no-tokenizer" in faults:
            self.fail(faults["no-tokenizer"], "tokenizer is not set")
        elif "status" in faults or number <= faults.get("busy", 0):
            self.fail(faults.get("status", 503), "so it was told")
        elif "garbage" in faults:
            self.answer(200, "<html>It works!</html>")
        elif request.get("stream"):
            self.stream(tokens, chat=chat)
        else:
            for _ in range(tokens):
                self.take_time()
            self.deliver(self.piece(tokens, "message" if chat else ""))

    def die(self) -> None:
        """The engine's process is gone: the server notices, and cleans up."""
        if not self.engine.dead:
            self.engine.dead = True
            self.engine.over.set()
            say(_DIED)
            end_after(DEAD_SECONDS, 0)
        self.fail(500, _DEAD)

    def stream(self, tokens: int, *, chat: bool) -> None:
        """Server-sent events, one per token. With a dead engine they end early without an error."""
        self.begin(200, "text/event-stream", None)
        for number in range(tokens):
            self.take_time()
            if self.engine.dead:
                break
            if "half" in self.engine.faults and number >= tokens // 2:
                self.reset()
            self.event(json.dumps(self.piece(1, "delta" if chat else "")))
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def take_time(self) -> None:
        """Make a token. Once the server is being stopped there is no next one."""
        self.engine.over.wait(self.engine.pace)
        if self.engine.over.is_set() and not self.engine.dead:
            self.never()
        self.engine.tokens += 1

    def piece(self, tokens: int, chat: str) -> dict[str, Any]:
        """An answer or a part of it, of so many tokens; `chat` names where a chat's text is."""
        text = " world" * tokens
        said = {chat: {"role": "assistant", "content": text}} if chat else {"text": text}
        return {
            "id": "fake",
            "model": self.engine.model,
            "choices": [{"index": 0, "finish_reason": "length", **said}],
            "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
        }

    def deliver(self, body: dict[str, Any]) -> None:
        """Send a completion, whole unless a fault forbids it."""
        data = json.dumps(body).encode()
        self.begin(200, "application/json", data)
        if "half" in self.engine.faults:
            self.wfile.write(data[: len(data) // 2])
            self.reset()
        size = 1 if "drip" in self.engine.faults else len(data)
        for first in range(0, len(data), size):
            self.wfile.write(data[first : first + size])
            time.sleep(0.1 if size == 1 else 0)

    def fail(self, status: int, message: str) -> None:
        self.answer(status, {"error": {"message": message, "code": status}})

    def answer(self, status: int, body: dict[str, Any] | str = "") -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.begin(status, "text/plain" if isinstance(body, str) else "application/json", data)
        self.wfile.write(data)

    def begin(self, status: int, kind: str, data: bytes | None) -> None:
        """Send what stands before `data`, or before chunks."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if data is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(data)))
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def never(self) -> NoReturn:
        """Say nothing until the client hangs up."""
        while self.request.recv(1 << 16):
            pass
        raise ConnectionResetError

    def reset(self) -> NoReturn:
        """Reset the connection, so that the client cannot mistake this for a normal end."""
        linger = struct.pack("ii", 1, 0)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.request.close()
        raise ConnectionResetError


if __name__ == "__main__":
    main()

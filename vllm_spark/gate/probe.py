"""Checks over HTTP whether a server serves: health, the model's name, one completion.

Only the completion proves anything: a server with a hung GPU answers 200 on /health and lists its
model. The size of an answer is limited, and redirects are not followed. The caller must limit the
time of a whole exchange, because a server that sends a byte now and then passes any limit on a
single read. The results are `Ready`, `NotYet` (a retry may help) and `Refused` (it will not).
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any, Final

import requests

from vllm_spark.gate.http import direct, within

RETRIED_STATUS: Final = frozenset({408, 429, 502, 503, 504})
"""Status codes of a server that starts or is busy. Any other error is final."""

MAX_BODY: Final = 1 << 20
"""The limit of bytes read; a list of one model and an answer of one token are far smaller."""

_TOKEN: Final = {"max_tokens": 1, "temperature": 0}
_QUESTIONS: Final[dict[str, dict[str, Any]]] = {
    "completions": {"prompt": "Hello", **_TOKEN},
    "chat/completions": {"messages": [{"role": "user", "content": "Hello"}], **_TOKEN},
    "embeddings": {"input": "Hello"},
}
_NOT_OFFERED: Final = re.compile(rb'"detail" *: *"Not Found"|does not support [\w ]+ API')
"""The first if the routes depend on the model (as in 0.32), the second in 0.10.1."""


@dataclass(frozen=True)
class Ready:
    """The model answered within `seconds`. `tokens` were generated; 0 for an embedding."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class NotYet:
    """The server cannot be reached or is not ready; `why` in a few words."""

    why: str


@dataclass(frozen=True)
class Refused:
    """The server answered wrongly, or never; `evidence` is its answer. A retry will not help."""

    cause: str
    fix: str
    evidence: tuple[str, ...]


HUNG_FIX: Final = (
    "the engine hangs: see its log and `nvidia-smi` on the host, then restart the container"
)


class _Final(Exception):
    def __init__(self, cause: str, fix: str, *evidence: str) -> None:
        self.refusal = Refused(cause, fix, evidence)


class _NotOffered(_Final):
    """The model does not complete text: an embedding model, for example."""


class _Retry(Exception):
    pass


@dataclass(frozen=True)
class Probe:
    """The requests to one server.

    `url` ends in /v1. `quick` bounds /health and /v1/models, `patience` the completion, both in
    seconds: the first request after a start compiles kernels, which took 30 s on a GB10.
    """

    url: str
    model: str
    api_key: str | None
    quick: float = 5.0
    patience: float = 180.0

    def listening(self) -> NotYet | Refused | None:
        """None if /health answers 200 and the model is listed: a completion can be requested.

        While vLLM loads, its port refuses connections, or resets them behind Docker's proxy.
        """
        try:
            self._ask("GET", self.url.removesuffix("/v1") + "/health", self.quick)
            body = self._ask("GET", f"{self.url}/models", self.quick)
            try:
                names = [entry["id"] for entry in json.loads(body)["data"]]
            except (ValueError, KeyError, TypeError) as error:
                raise _Final(
                    "the server's list of models cannot be read",
                    "see whether something other than vLLM listens on this port",
                    f"GET /v1/models: {_shown(body)}",
                ) from error
            if self.model not in names:
                raise _Final(
                    f"the server serves {', '.join(map(str, names))} and not {self.model}",
                    "see what listens on this port, or correct vllm-spark:model.servedName",
                    f"GET /v1/models: {_shown(body)}",
                )
        except _Retry as reason:
            return NotYet(str(reason))
        except _Final as final:
            return final.refusal
        return None

    def answer(self) -> Ready | NotYet | Refused:
        """Request one token, or an embedding from an embedding model: the proof that it serves.

        Sent once per start of the container, because it takes a place in the queue.
        """
        began = time.monotonic()
        try:
            tokens = self._proof()
        except _Retry as reason:
            return NotYet(str(reason))
        except _Final as final:
            return final.refusal
        return Ready(time.monotonic() - began, tokens)

    def serves(self) -> Ready | NotYet | Refused:
        """All requests in order, for a server that should be up."""
        limit = 4 * self.quick + 2 * self.patience
        hung = Refused("the server took a request and never finished its answer", HUNG_FIX, ())
        return within(limit, lambda: self.listening() or self.answer()) or hung

    def _proof(self) -> int:
        """The number of tokens in the answer to the first request that this model accepts."""
        refusals = []
        for path, question in _QUESTIONS.items():
            request = {"model": self.model, **question}
            try:
                body = self._ask("POST", f"{self.url}/{path}", self.patience, request)
            except _NotOffered as refusal:
                refusals.append(refusal)
                continue
            tokens = _tokens(body)
            if tokens is None:
                raise _Final(
                    "the server's answer is empty or broken",
                    "see the server's log for what went wrong in the engine",
                    f"POST /v1/{path}: {_shown(body)}",
                )
            return tokens
        raise refusals[0]

    def _ask(self, method: str, url: str, limit: float, request: Any = None) -> bytes:
        """The body of a 200. _Retry or _Final otherwise. `limit` is seconds for each read."""
        path = "/" + url.split("/", 3)[3]
        # As bytes, because `requests` encodes text as latin-1 only.
        headers = {"Authorization": f"Bearer {self.api_key}".encode()} if self.api_key else {}
        try:
            response = direct().request(
                method,
                url,
                json=request,
                headers=headers,
                timeout=limit,
                allow_redirects=False,
                stream=True,
            )
        except requests.Timeout as error:
            if request is None:
                raise _Retry(f"{path} did not answer within {limit:g} s") from error
            raise _Final(
                f"the server took the request and did not answer within {limit:g} s",
                HUNG_FIX,
                f"{method} {path}: no answer after {limit:g} s",
            ) from error
        except requests.ConnectionError as error:
            raise _Retry("the port does not answer yet") from error
        except requests.RequestException as error:
            raise _Final(
                "what listens on this port does not speak HTTP",
                "find it with `ss -ltnp` and free the port, or change vllm-spark:endpoint.port",
                f"{method} {path}: {type(error).__name__}",
            ) from error
        with response:
            try:
                body: bytes = next(response.iter_content(MAX_BODY), b"")
            except requests.RequestException as error:
                if request is None:
                    raise _Retry(f"{path} broke off") from error
                raise _Final(
                    "the server broke off in the middle of its answer",
                    "see the server's log for what ended the engine",
                    f"{method} {path}: the answer broke off",
                ) from error
        if response.status_code in RETRIED_STATUS:
            raise _Retry(f"{path} answers {response.status_code}")
        if response.status_code != 200:
            raise (_NotOffered if request and _NOT_OFFERED.search(body) else _Final)(
                f"the server answers {response.status_code} on {path}",
                _FIXES.get(response.status_code, "see the server's log"),
                f"{method} {path}: {response.status_code} {_shown(body)}",
            )
        return body


_FIXES = {
    301: "something other than vLLM listens on this port: free it, or change the port",
    302: "something other than vLLM listens on this port: free it, or change the port",
    401: "the server wants another API key: set vllm-spark:apiKey to the one it was started with",
    404: "see that the image serves vLLM's OpenAI API and that the model generates text",
}


def _tokens(body: bytes) -> int | None:
    """The number of generated tokens, 0 for an embedding; None if the body is no answer."""
    try:
        answer = json.loads(body)
        if "data" in answer:
            return 0 if answer["data"][0]["embedding"] else None
        return int(answer["usage"]["completion_tokens"]) or None
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _shown(body: bytes) -> str:
    return body[:300].decode(errors="replace") or "(empty body)"

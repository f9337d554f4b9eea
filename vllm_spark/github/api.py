"""GitHub's REST API for one repository: pages, retries, limits, and errors that tell the fix.

Sources: docs.github.com/en/rest, "Using pagination", "Rate limits" and "Best practices".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from vllm_spark.errors import GitHubError

MOST_PAGES = 30
"""Of 100 entries each: beyond this, a list is not read further."""

BOT = "github-actions[bot]"
"""The author of everything that a workflow's own token writes."""

_LIMITED = (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
_SECONDS = 30


class Repository:
    """A repository, with the token that may read and write it.

    Reads and edits are repeated after an error of GitHub's servers. A new comment or issue is not,
    since it may be there in spite of the error.
    """

    def __init__(self, name: str, token: str, *, api: str, web: str) -> None:
        self.page = f"{web.rstrip('/')}/{name}"
        self._root = f"{api.rstrip('/')}/repos/{name}"
        self._session = requests.Session()
        self._session.headers.update(
            {
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "X-GitHub-Api-Version": "2022-11-28",
            }
        )
        again = Retry(
            total=3,
            backoff_factor=0.5,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods=("GET", "PATCH"),
            raise_on_status=False,
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again))

    @classmethod
    def of_workflow(cls) -> Repository:
        """The repository of the workflow that runs this. GitHubError outside of a workflow."""
        given = os.environ
        try:
            name, token = given["GITHUB_REPOSITORY"], given["GITHUB_TOKEN"]
            return cls(name, token, api=given["GITHUB_API_URL"], web=given["GITHUB_SERVER_URL"])
        except KeyError as error:
            raise GitHubError(
                f"{error.args[0]} is not set: this command is for a workflow of GitHub Actions\n"
                "  fix: run it in a step that has `env: GITHUB_TOKEN: ${{ github.token }}`"
            ) from None

    def get(self, path: str) -> Any:
        """The object at a path below the repository."""
        with self._asked("GET", f"{self._root}/{path}") as answer:
            return answer.json()

    def listed(self, path: str, key: str | None = None, **query: str) -> Iterator[dict[str, Any]]:
        """The entries of a list, page after page; `key` is where the answer has them."""
        url: str | None = f"{self._root}/{path}"
        asked: dict[str, str] | None = {**query, "per_page": "100"}
        for _ in range(MOST_PAGES):
            with self._asked("GET", str(url), params=asked) as answer:
                found = answer.json()
                url, asked = answer.links.get("next", {}).get("url"), None
            yield from found[key] if key else found
            if url is None:
                return

    def send(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Create (POST) or edit (PATCH) something."""
        with self._asked(method, f"{self._root}/{path}", json=body):
            pass

    def download(self, path: str, most_bytes: int) -> bytes:
        """A file. GitHubError if it is larger than it may be."""
        content = b""
        with self._asked("GET", f"{self._root}/{path}", stream=True) as answer:
            for part in answer.iter_content(65_536):
                content += part
                if len(content) > most_bytes:
                    raise GitHubError(f"{path} is larger than {most_bytes:,} bytes")
        return content

    @contextmanager
    def _asked(self, method: str, url: str, **more: Any) -> Iterator[requests.Response]:
        """The answer, to read in the block. GitHubError if there is none, or another than asked."""
        what = f"{method} {_path(url)}"
        try:
            with self._session.request(method, url, timeout=_SECONDS, **more) as answer:
                if not answer.ok:
                    raise GitHubError(f"{what}: {_why(answer)}")
                yield answer
        except requests.RequestException as error:
            raise GitHubError(
                f"{what}: GitHub did not answer, or not in full ({type(error).__name__})\n"
                "  fix: run this job again"
            ) from None


def _path(url: str) -> str:
    """The URL without its query, which may hold names that somebody else has chosen."""
    return url.partition("?")[0]


def _why(answer: requests.Response) -> str:
    status, headers = answer.status_code, answer.headers
    told = f"GitHub answered {status} {answer.reason}".rstrip()
    used_up = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    if status in _LIMITED and used_up:
        reset = headers.get("x-ratelimit-reset", "")
        known = reset.isdecimal()
        when = f"at {datetime.fromtimestamp(int(reset), UTC):%H:%M} UTC" if known else "later"
        return f"{told}: too many requests\n  fix: run this job again {when}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"{told}\n  fix: run this job again"
    return f"{told}\n  fix: see the job's `permissions`, and the repository's settings for Actions"
